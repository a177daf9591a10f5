/** What somebody may have meant by a name that does not exist. */

const MOST = 4;

/** Optimal string alignment distance (insertions, deletions, replacements, neighbours exchanged), or `limit + 1` when it is more. */
export function distance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) > limit) return limit + 1;
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    let least = i;
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let d = Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) d = Math.min(d, before[j - 2]! + 1);
      row.push(d);
      least = Math.min(least, d);
    }
    if (least > limit) return limit + 1;
    before = previous;
    previous = row;
  }
  return Math.min(previous[b.length]!, limit + 1);
}

/** The names most like this one, the likeliest first; none where nothing is like it. */
export function nearNames(name: string, names: Iterable<string>): string[] {
  // one letter of a short name, two of a longer one
  const limit = name.length < 5 ? 1 : 2;
  const slips = new Map<string, number>();
  const longer = new Map<string, number>();
  for (const other of names) {
    const d = distance(name, other, limit);
    if (d <= limit) slips.set(other, d);
    // "sqlite" for sqlite3, "libnuma" for libnuma1 or libnuma-dev
    else if (name.length > 2 && other.startsWith(name)) longer.set(other, other.length);
  }
  const least = Math.min(...slips.values());
  return [...[...slips].filter(([, d]) => d === least), ...longer]
    .sort(([a, i], [b, j]) => i - j || a.length - b.length || (a < b ? -1 : 1))
    .slice(0, MOST)
    .map(([other]) => other);
}
