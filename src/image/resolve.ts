/** Which packages are needed: relation fields such as Depends, and their closure (Debian Policy, "Relationships"). */
import type { PackageRecord } from "./debian-index.js";
import { meetsRelation } from "./debian-version.js";
import { ImageError } from "./errors.js";

export interface Dependency {
  readonly name: string;
  readonly relation: string | undefined;
  readonly version: string | undefined;
}

/** "a (>= 1) | b, c" -> each element a list of alternatives. Architecture and profile restrictions are dropped. */
export function parseDepends(field: string | undefined): Dependency[][] {
  return (field ?? "")
    .split(",")
    .map((group) =>
      group.split("|").flatMap((alternative) => {
        const match = /^\s*([a-z0-9][a-z0-9+.-]*)(?::\w+)?\s*(?:\(\s*(<<|<=|=|>=|>>)\s*([^\s)]+)\s*\))?/.exec(
          alternative,
        );
        return match === null ? [] : [{ name: match[1]!, relation: match[2], version: match[3] }];
      }),
    )
    .filter((alternatives) => alternatives.length > 0);
}

/**
 * The package and everything its Depends and Pre-Depends lead to, each once, breadth first.
 *
 * @param find    looks up the newest version of a package
 * @param isKnown names that need no package: what the guest has by other means
 */
export function dependencyClosure(
  start: PackageRecord,
  find: (name: string) => PackageRecord | undefined,
  isKnown: (name: string) => boolean,
): PackageRecord[] {
  const found = new Map<string, PackageRecord>([[start.name, start]]);
  for (const record of found.values()) {
    const fields = [record.control.get("pre-depends"), record.control.get("depends")];
    for (const alternatives of fields.flatMap(parseDepends)) {
      if (alternatives.some(({ name }) => isKnown(name) || found.has(name))) continue;
      const choice = alternatives
        .map((wanted) => ({ wanted, record: find(wanted.name) }))
        .find(
          ({ wanted, record: candidate }) =>
            candidate !== undefined &&
            (wanted.relation === undefined || meetsRelation(candidate.version, wanted.relation, wanted.version!)),
        );
      if (choice?.record === undefined) {
        const names = alternatives.map(({ name }) => name).join(" or ");
        throw new ImageError(
          "missing-package",
          `${record.name} needs ${names}, which the mirror does not have`,
          "use another mirror (--mirror)",
        );
      }
      found.set(choice.record.name, choice.record);
    }
  }
  return [...found.values()];
}
