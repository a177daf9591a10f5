/** Order of Debian version numbers (Debian Policy, "Version"; deb-version(7)). */

/** Rank of a character outside a number: "~" before the end, the end before letters, letters before the rest. */
function rank(text: string, at: number): number {
  if (at >= text.length) return 0;
  const code = text.charCodeAt(at);
  if (code === 0x7e) return -1;
  const isDigit = code >= 0x30 && code <= 0x39;
  if (isDigit) return 0; // a number ends the run just as the end does
  const isLetter = (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a);
  return isLetter ? code : code + 256;
}

const isDigitAt = (text: string, at: number): boolean => at < text.length && rank(text, at) === 0;

/** Compares by turns a run of non-digits and a number. */
function comparePart(a: string, b: string): number {
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    while ((i < a.length && !isDigitAt(a, i)) || (j < b.length && !isDigitAt(b, j))) {
      const difference = rank(a, i) - rank(b, j);
      if (difference !== 0) return difference;
      i++;
      j++;
    }
    const startA = i;
    const startB = j;
    while (isDigitAt(a, i)) i++;
    while (isDigitAt(b, j)) j++;
    const digitsA = a.slice(startA, i).replace(/^0+/, "");
    const digitsB = b.slice(startB, j).replace(/^0+/, "");
    if (digitsA.length !== digitsB.length) return digitsA.length - digitsB.length;
    if (digitsA !== digitsB) return digitsA < digitsB ? -1 : 1;
  }
  return 0;
}

function split(version: string): { epoch: string; upstream: string; revision: string } {
  const colon = version.indexOf(":");
  const epoch = colon < 0 ? "0" : version.slice(0, colon);
  const rest = version.slice(colon + 1);
  const dash = rest.lastIndexOf("-");
  return dash < 0
    ? { epoch, upstream: rest, revision: "" }
    : { epoch, upstream: rest.slice(0, dash), revision: rest.slice(dash + 1) };
}

/** Below 0 when `a` is older than `b`, 0 when they are equal, above 0 when it is newer. */
export function compareDebianVersions(a: string, b: string): number {
  const left = split(a);
  const right = split(b);
  return (
    comparePart(left.epoch, right.epoch) ||
    comparePart(left.upstream, right.upstream) ||
    comparePart(left.revision, right.revision)
  );
}

/** Whether `version` meets a relation of a control field: "<<", "<=", "=", ">=", ">>". */
export function meetsRelation(version: string, relation: string, wanted: string): boolean {
  const order = compareDebianVersions(version, wanted);
  switch (relation) {
    case "<<":
      return order < 0;
    case "<=":
      return order <= 0;
    case "=":
      return order === 0;
    case ">=":
      return order >= 0;
    case ">>":
      return order > 0;
    default:
      return false;
  }
}
