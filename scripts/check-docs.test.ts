import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { undocumented } from "./check-docs.js";

const of = (files: Record<string, string>): string[] => undocumented("a.d.ts", (file) => files[file]!);

describe("descriptions", () => {
  it("are missed at exported names, their members, and the types that they lead to", () => {
    assert.deepEqual(
      of({
        "a.d.ts": `import { type B, C as D } from "./sub/b.js";
export { type Named } from "./sub/b.js";
/** It has one. */
export interface A extends Omit<D, "x"> {
    /** It has one. */
    readonly good: B;
    readonly bad: {
        inner: string;
    };
    call(x: number): void;
}
export declare function f(): void;
interface Hidden {
    readonly unseen: string;
}
`,
        "sub/b.d.ts": `/** Some. */
export interface B {
    get size(): number;
}
export declare class C {
    #private;
    private secret;
    /** Mine. @internal */
    constructor(x: Far);
    /** Breaks it. */
    [Symbol.dispose](): void;
}
export interface Far {
    readonly unseen: string;
}
export type Named = "x";
`,
      }).sort(),
      ["a.d.ts: A.bad", "a.d.ts: A.call", "a.d.ts: f", "sub/b.d.ts: B.size", "sub/b.d.ts: C", "sub/b.d.ts: Named"],
    );
  });
  it("are nobody's business within what is opaque", () => {
    const text =
      "/** Plain data. @opaque */\nexport interface A {\n    readonly x: B;\n}\ninterface B {\n    readonly y: 1;\n}\n";
    assert.deepEqual(of({ "a.d.ts": text }), []);
  });
});
