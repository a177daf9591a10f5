/**
 * A Debian archive's indexes: the signed InRelease of a suite, which names the SHA-256 of its Packages files, which name
 * the SHA-256 of each package (Debian wiki, "DebianRepository/Format"). Only text that a known key has signed is used.
 */
import { latin1, utf8 } from "./byte-reader.js";
import { type Paragraph, parseParagraph } from "./deb822.js";
import { compareDebianVersions } from "./debian-version.js";
import { damaged, ImageError } from "./errors.js";

export interface Release {
  readonly codename: string;
  /** Milliseconds since 1970; undefined when the suite never goes out of date. */
  readonly validUntil: number | undefined;
  readonly hasByHash: boolean;
  readonly files: ReadonlyMap<string, { readonly sha256: string; readonly size: number }>;
}

export interface PackageRecord {
  readonly name: string;
  readonly version: string;
  /** Path of the .deb below the archive's root. */
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
  readonly control: Paragraph;
}

/** Untrusted paths from an index end up in URLs: plain relative ones only. */
function isPlainPath(path: string): boolean {
  return (
    /^[A-Za-z0-9][A-Za-z0-9._+~/:%-]*$/.test(path) && !path.split("/").some((part) => part === "" || part === "..")
  );
}

/**
 * Checks the clear-text signature and gives the signed text.
 *
 * @param keyring one or more public keys, binary or ASCII-armoured
 * @param name    what is checked, for messages: "bookworm-security's InRelease"
 * @param nowMs   the time against which keys' and signatures' dates are held
 */
export async function verifyClearsigned(
  signed: Uint8Array,
  keyring: Uint8Array,
  name: string,
  nowMs: number,
): Promise<string> {
  const text = utf8(signed);
  const refuse = (why: string, cause?: unknown): ImageError =>
    new ImageError(
      "bad-signature",
      `${name} is refused: ${why}`,
      "use another mirror (--mirror), or give the archive's current keys (--keyring)",
      { cause },
    );
  if (!text.startsWith("-----BEGIN PGP SIGNED MESSAGE-----")) throw refuse("it is not signed");
  // 1.2 MB of code that a cached guest does without
  const { readCleartextMessage, readKeys, verify } = await import("openpgp");
  const armored = latin1(keyring.subarray(0, 64)).includes("BEGIN PGP PUBLIC KEY");
  const keys = await (armored ? readKeys({ armoredKeys: utf8(keyring) }) : readKeys({ binaryKeys: keyring })).catch(
    (error: unknown) => {
      throw new ImageError("bad-keyring", "the keyring cannot be read", "give a file of OpenPGP public keys", {
        cause: error,
      });
    },
  );
  const message = await readCleartextMessage({ cleartextMessage: text }).catch((error: unknown) => {
    throw refuse("its signature cannot be read", error);
  });
  const result = await verify({ message, verificationKeys: keys, date: new Date(nowMs) });
  const failures: string[] = [];
  let isGood = false;
  for (const { verified } of result.signatures) {
    await verified.then(
      () => (isGood = true),
      (error: unknown) => failures.push(error instanceof Error ? error.message : String(error)),
    );
  }
  // One good signature is enough (an archive signs with old and new keys), but none may contradict the text.
  if (failures.some((failure) => /digest did not match|verification failed/i.test(failure))) {
    throw refuse("its text was changed after it was signed");
  }
  if (!isGood) throw refuse("none of its signatures is by a key we know");
  return message.getText();
}

export function parseRelease(text: string, name: string): Release {
  const fields = parseParagraph(text.replaceAll("\r\n", "\n"));
  const files = new Map<string, { sha256: string; size: number }>();
  for (const line of (fields.get("sha256") ?? "").split("\n")) {
    const match = /^\s*([0-9a-f]{64})\s+(\d+)\s+(\S+)\s*$/.exec(line);
    if (match !== null) files.set(match[3]!, { sha256: match[1]!, size: Number(match[2]) });
  }
  if (files.size === 0) throw damaged(name, "it lists no SHA-256 sums");
  const until = fields.get("valid-until");
  const validUntil = until === undefined ? undefined : Date.parse(until);
  if (Number.isNaN(validUntil)) throw damaged(name, `its Valid-Until "${until}" is no date`);
  return {
    codename: fields.get("codename") ?? "",
    validUntil,
    hasByHash: fields.get("acquire-by-hash") === "yes",
    files,
  };
}

export interface PackageSummary {
  readonly name: string;
  readonly isEssential: boolean;
  readonly priority: string;
  /** As the field has it. */
  readonly provides: string;
}

/** One Packages file. Paragraphs are found quickly and read only when asked for: there are tens of thousands. */
export class PackageIndex {
  readonly #text: string;
  /** Start of each paragraph that begins with "Package: name". */
  readonly #starts = new Map<string, number[]>();

  constructor(bytes: Uint8Array) {
    this.#text = utf8(bytes);
    const field = "Package: ";
    for (let at = 0; at < this.#text.length; ) {
      if (this.#text.startsWith(field, at)) {
        const lineEnd = this.#text.indexOf("\n", at);
        const name = this.#text.slice(at + field.length, lineEnd < 0 ? undefined : lineEnd).trim();
        const starts = this.#starts.get(name);
        if (starts === undefined) this.#starts.set(name, [at]);
        else starts.push(at);
      }
      const end = this.#text.indexOf("\n\n", at);
      if (end < 0) break;
      at = end + 2;
    }
  }

  get size(): number {
    return this.#starts.size;
  }

  /** Names and the fields by which packages are looked for otherwise, in one pass over the text. */
  *summaries(): Generator<PackageSummary> {
    let name: string | undefined;
    let fields: Record<string, string> = {};
    const summary = (): PackageSummary => ({
      name: name!,
      isEssential: fields.Essential === "yes",
      priority: fields.Priority ?? "",
      provides: fields.Provides ?? "",
    });
    for (const [, field, value] of this.#text.matchAll(/^(Package|Essential|Priority|Provides): (.*)$/gm)) {
      if (field === "Package") {
        if (name !== undefined) yield summary();
        name = value!;
        fields = {};
      } else fields[field!] = value!;
    }
    if (name !== undefined) yield summary();
  }

  /** All versions of the package that this index has. */
  versions(name: string): PackageRecord[] {
    return (this.#starts.get(name) ?? []).map((start) => {
      const end = this.#text.indexOf("\n\n", start);
      const control = parseParagraph(this.#text.slice(start, end < 0 ? undefined : end));
      const path = control.get("filename") ?? "";
      const sha256 = control.get("sha256") ?? "";
      const size = Number(control.get("size"));
      const version = control.get("version") ?? "";
      if (!isPlainPath(path) || !/^[0-9a-f]{64}$/.test(sha256) || !Number.isSafeInteger(size) || version === "") {
        throw damaged(`the package index's entry of ${name}`, "its file name, size, version or SHA-256 is wrong");
      }
      return { name, version, path, size, sha256, control };
    });
  }
}

/** A package record and the archive that has it. */
export interface FoundPackage<Archive> {
  readonly archive: Archive;
  readonly record: PackageRecord;
}

/** The newest version over several indexes; of equal versions the one in the first index. */
export function newestPackage<Archive>(
  indexes: readonly { readonly archive: Archive; readonly index: PackageIndex }[],
  name: string,
): FoundPackage<Archive> | undefined {
  let best: FoundPackage<Archive> | undefined;
  for (const { archive, index } of indexes) {
    for (const record of index.versions(name)) {
      if (best === undefined || compareDebianVersions(record.version, best.record.version) > 0) {
        best = { archive, record };
      }
    }
  }
  return best;
}
