/** Checks of what somebody else wrote as JSON: a shape takes a value apart and gives it back typed, or says where it is wrong. */
export class ShapeError extends Error {
  override readonly name = "ShapeError";
}

/** @throws ShapeError; @param at where the value stands, for the message */
export type Shape<T> = (value: unknown, at: string) => T;
export type Shaped<S> = S extends Shape<infer T> ? T : never;

const wrong = (at: string, wanted: string): never => {
  throw new ShapeError(`${at === "" ? "it" : at} is not ${wanted}`);
};
const MAX_TEXT = 1 << 19;
const MAX_ITEMS = 1 << 14;

export const text: Shape<string> = (value, at) =>
  typeof value === "string" && value.length <= MAX_TEXT ? value : wrong(at, "a text");
export const flag: Shape<boolean> = (value, at) => (typeof value === "boolean" ? value : wrong(at, "true or false"));
/** Any finite number. */
export const number: Shape<number> = (value, at) =>
  typeof value === "number" && Number.isFinite(value) ? value : wrong(at, "a number");
/** A whole one from `least` to `most`. */
export function whole(least: number, most: number): Shape<number> {
  return (value, at) =>
    Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most
      ? (value as number)
      : wrong(at, `a whole number from ${least} to ${most}`);
}
export function oneOf<const T extends string>(...values: readonly T[]): Shape<T> {
  return (value, at) => (values.includes(value as T) ? (value as T) : wrong(at, `one of ${values.join(", ")}`));
}
export function list<T>(item: Shape<T>, most = MAX_ITEMS): Shape<readonly T[]> {
  return (value, at) => {
    if (!Array.isArray(value) || value.length > most) return wrong(at, `a list of at most ${most}`);
    return value.map((v, i) => item(v, `${at}[${i}]`));
  };
}
/** An object used as a table. */
export function table<T>(item: Shape<T>): Shape<Readonly<Record<string, T>>> {
  return (value, at) => {
    const entries = Object.entries(objectOf(value, at));
    if (entries.length > MAX_ITEMS) return wrong(at, `a table of at most ${MAX_ITEMS}`);
    // defined, not assigned: "__proto__" is a name like others
    return Object.fromEntries(entries.map(([key, v]) => [key, item(v, `${at}.${key}`)]));
  };
}
const OPTIONAL = Symbol("optional");
type Optional<T> = Shape<T | undefined> & { readonly [OPTIONAL]: true };
/** A field that may be missing. */
export function optional<T>(shape: Shape<T>): Optional<T> {
  const check: Shape<T | undefined> = (value, at) => (value === undefined ? undefined : shape(value, at));
  return Object.assign(check, { [OPTIONAL]: true } as const);
}

type Fields = Readonly<Record<string, Shape<unknown>>>;
type OptionalKeys<F> = { [K in keyof F]: F[K] extends Optional<unknown> ? K : never }[keyof F];
type Flat<T> = { readonly [K in keyof T]: T[K] };
type Values<F extends Fields> = Flat<
  { [K in Exclude<keyof F, OptionalKeys<F>>]: Shaped<F[K]> } & {
    [K in OptionalKeys<F>]?: Exclude<Shaped<F[K]>, undefined>;
  }
>;
/** An object with these fields; what else it has is left out, so that a newer peer may say more. */
export function record<const F extends Fields>(fields: F): Shape<Values<F>> {
  return (value, at) => {
    const from = objectOf(value, at);
    const out: Record<string, unknown> = {};
    for (const [name, shape] of Object.entries(fields)) {
      const v = shape(Object.hasOwn(from, name) ? from[name] : undefined, at === "" ? name : `${at}.${name}`);
      if (v !== undefined) out[name] = v;
    }
    return out as Values<F>;
  };
}
function objectOf(value: unknown, at: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return wrong(at, "an object");
  return value as Record<string, unknown>;
}
/** Whatever it is: for people and programs that look themselves. */
export const anything: Shape<unknown> = (value) => value;
