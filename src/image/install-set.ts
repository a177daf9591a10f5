/**
 * The packages of a whole system: what is wanted, closed over Pre-Depends and Depends with alternatives, virtual packages and
 * versions (Debian Policy, "Relationships" and "Virtual packages"), checked for conflicts, in an order that dpkg can take.
 */
import type { PackageRecord } from "./debian-index.js";
import { meetsRelation } from "./debian-version.js";
import { ImageError } from "./errors.js";
import { type Dependency, parseDepends } from "./resolve.js";

/** What the archive has. */
export interface PackageUniverse {
  /** The newest version of a package. */
  find(name: string): PackageRecord | undefined;
  /** Names of packages whose Provides have this name. */
  providers(name: string): readonly string[];
}

const PRIORITIES = ["required", "important", "standard", "optional", "extra"];
const rank = (record: PackageRecord): number => {
  const at = PRIORITIES.indexOf(record.control.get("priority") ?? "");
  return at < 0 ? PRIORITIES.length : at;
};

/** A virtual package meets a versioned relation only when it is provided with a version ("Virtual packages"). */
function meets(version: string | undefined, { relation, version: wanted }: Dependency): boolean {
  return relation === undefined || (version !== undefined && meetsRelation(version, relation, wanted!));
}
const provided = (record: PackageRecord): Dependency[] => parseDepends(record.control.get("provides")).flat();

/** Whether the record, by its own name or by what it provides, is what a relation asks for. */
export function satisfies(record: PackageRecord, wanted: Dependency): boolean {
  if (record.name === wanted.name && meets(record.version, wanted)) return true;
  return provided(record).some(({ name, version }) => name === wanted.name && meets(version, wanted));
}

const relations = (record: PackageRecord, ...fields: readonly string[]): Dependency[][] =>
  fields.flatMap((field) => parseDepends(record.control.get(field)));
const shown = ({ name, relation, version }: Dependency): string =>
  relation === undefined ? name : `${name} (${relation} ${version})`;

/** The chosen packages by what they can be called: own names and provided ones. */
class Chosen {
  readonly records = new Map<string, PackageRecord>();
  readonly #byName = new Map<string, PackageRecord[]>();

  add(record: PackageRecord): void {
    if (this.records.has(record.name)) return;
    this.records.set(record.name, record);
    for (const name of new Set([record.name, ...provided(record).map((p) => p.name)])) {
      this.#byName.set(name, [...(this.#byName.get(name) ?? []), record]);
    }
  }
  /** All that are what the relation asks for. */
  matching(wanted: Dependency): PackageRecord[] {
    return (this.#byName.get(wanted.name) ?? []).filter((record) => satisfies(record, wanted));
  }
}

/** What can be installed for a relation: the package of that name first, then those that provide it, the most usual first. */
function candidates(wanted: Dependency, universe: PackageUniverse, avoid: ReadonlySet<string>): PackageRecord[] {
  const own = universe.find(wanted.name);
  const others = universe
    .providers(wanted.name)
    .map((name) => universe.find(name))
    .filter((record) => record !== undefined)
    .sort((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1));
  return [...(own === undefined ? [] : [own]), ...others].filter(
    (record) => !avoid.has(record.name) && satisfies(record, wanted),
  );
}

/**
 * @param wanted  names; each may be virtual
 * @param avoid   names that are never chosen, as though the archive lacked them
 * @param present packages that come from elsewhere and count as chosen
 * @throws ImageError missing-package, package-conflict
 */
export function installSet(
  wanted: readonly string[],
  universe: PackageUniverse,
  { avoid = new Set(), present = [] }: { avoid?: ReadonlySet<string>; present?: readonly PackageRecord[] } = {},
): PackageRecord[] {
  const chosen = new Chosen();
  for (const record of present) chosen.add(record);
  const missing = (who: string, what: string): ImageError =>
    new ImageError(
      "missing-package",
      `${who} ${what}, which the mirror does not have`,
      "use another mirror (--mirror)",
    );
  // All that is wanted comes first, so that alternatives and virtual packages are met by it where they can be.
  for (const name of wanted) {
    const dependency = { name, relation: undefined, version: undefined };
    if (chosen.matching(dependency).length > 0 && universe.find(name) === undefined) continue;
    const record = candidates(dependency, universe, avoid)[0];
    if (record === undefined) throw missing("you want", name);
    chosen.add(record);
  }
  for (const record of chosen.records.values()) {
    for (const alternatives of relations(record, "pre-depends", "depends")) {
      if (alternatives.some((a) => chosen.matching(a).length > 0)) continue;
      const choice = alternatives.flatMap((a) => candidates(a, universe, avoid))[0];
      if (choice === undefined) throw missing(`${record.name} needs`, alternatives.map(shown).join(" or "));
      chosen.add(choice);
    }
  }
  const all = [...chosen.records.values()];
  for (const record of all) {
    for (const enemy of relations(record, "conflicts", "breaks").flat()) {
      const other = chosen.matching(enemy).find(({ name }) => name !== record.name);
      if (other === undefined) continue;
      throw new ImageError(
        "package-conflict",
        `the packages ${record.name} and ${other.name} exclude each other`,
        "leave one of them out",
      );
    }
  }
  const foreign = new Set(present.map(({ name }) => name));
  return inOrder(all, chosen).filter(({ name }) => !foreign.has(name));
}

/**
 * Each after what it depends on. Where packages depend on each other in a circle, Pre-Depends (which must never be in one) win:
 * they are followed first.
 */
function inOrder(records: readonly PackageRecord[], chosen: Chosen): PackageRecord[] {
  const done = new Set<string>();
  const out: PackageRecord[] = [];
  const visit = (record: PackageRecord): void => {
    if (done.has(record.name)) return;
    done.add(record.name);
    for (const alternatives of relations(record, "pre-depends", "depends")) {
      const met = alternatives.map((a) => chosen.matching(a)[0]).find((r) => r !== undefined);
      if (met !== undefined) visit(met);
    }
    out.push(record);
  };
  for (const record of [...records].sort((a, b) => (a.name < b.name ? -1 : 1))) visit(record);
  return out;
}

/**
 * Parts that are installed one after the other. dpkg unpacks all packages of a run and then configures them, but a Pre-Depends has
 * to be configured before its package is unpacked: it goes into a part of its own run, with all that it depends on.
 *
 * @param records in order
 * @param present what is configured before
 */
export function installLayers(records: readonly PackageRecord[], present: readonly PackageRecord[]): PackageRecord[][] {
  const chosen = new Chosen();
  for (const record of [...present, ...records]) chosen.add(record);
  const layers = new Map<string, number>(records.map(({ name }) => [name, 0]));
  const least = (record: PackageRecord, field: string, more: number): number =>
    Math.max(
      0,
      ...relations(record, field).map((alternatives) => {
        const met = alternatives.flatMap((a) => chosen.matching(a)).map(({ name }) => layers.get(name));
        // one that is there before is enough
        return met.length === 0 || met.includes(undefined) ? 0 : Math.min(...met.map((layer) => layer! + more));
      }),
    );
  // Packages that depend on each other in a circle end up in one layer; Pre-Depends never form one.
  for (let rounds = 0, changed = true; changed; rounds++) {
    changed = false;
    if (rounds > records.length)
      throw new ImageError("package-circle", "packages pre-depend on each other", "use another mirror (--mirror)");
    for (const record of records) {
      const layer = Math.max(layers.get(record.name)!, least(record, "depends", 0), least(record, "pre-depends", 1));
      if (layer === layers.get(record.name)) continue;
      layers.set(record.name, layer);
      changed = true;
    }
  }
  const out: PackageRecord[][] = [];
  for (const record of records) {
    const layer = layers.get(record.name)!;
    while (out.length <= layer) out.push([]);
    out[layer]!.push(record);
  }
  return out.filter((part) => part.length > 0);
}
