/** deb822: the "Field: value" paragraphs of Debian's control files, package indexes and apt sources (deb822(5)). */

/** Field names in lower case: Debian reads them without regard to case. */
export type Paragraph = ReadonlyMap<string, string>;

/** One paragraph; continuation lines are joined with newlines, their first blank dropped, comment lines skipped. */
export function parseParagraph(text: string): Paragraph {
  const fields = new Map<string, string>();
  let name: string | undefined;
  for (const line of text.split("\n")) {
    if (line.startsWith("#")) continue;
    if (/^[ \t]/.test(line)) {
      if (name !== undefined) fields.set(name, `${fields.get(name)}\n${line.slice(1).trimEnd()}`);
      continue;
    }
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    name = line.slice(0, colon).toLowerCase();
    fields.set(name, line.slice(colon + 1).trim());
  }
  return fields;
}

export function parseParagraphs(text: string): Paragraph[] {
  return text
    .replaceAll("\r\n", "\n")
    .split(/\n[ \t]*\n+/)
    .map(parseParagraph)
    .filter((paragraph) => paragraph.size > 0);
}
