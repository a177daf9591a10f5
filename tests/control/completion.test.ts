/** Completion in the shells themselves: what each of them would offer for a line. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

/** Prints what the shell is offered for `$LINE`, one a line; what it knows beside (a description) behind a tab. */
const SHELLS: Readonly<Record<string, readonly string[]>> = {
  bash: [
    "--norc",
    "-c",
    `source <(enlighten completion bash); COMP_LINE=$LINE COMP_POINT=\${#LINE}
    _enlighten 2>/dev/null; printf '%s\\n' "\${COMPREPLY[@]}"`,
  ],
  // outside of its editor, zsh has no compadd and no _files
  zsh: [
    "-fc",
    `compdef() { :; }; compadd() { print -l -- \${(P)@[-1]}; }; _files() { print -l -- files; }
    source <(enlighten completion zsh); words=("\${(@s: :)LINE}"); CURRENT=\${#words}; _enlighten`,
  ],
  fish: ["-N", "-c", `enlighten completion fish | source; complete -C "$LINE"`],
};

describe("completion", () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "enlighten-completion-"));
    mkdirSync(join(folder, "bin"));
    mkdirSync(join(folder, "home"));
    const main = join(import.meta.dirname, "../../src/cli/main.js");
    writeFileSync(join(folder, "bin/enlighten"), `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`, {
      mode: 0o755,
    });
    writeFileSync(join(folder, "home/web.txt"), "");
  });
  after(() => rmSync(folder, { recursive: true }));
  const offered = (shell: string, line: string): string[] =>
    execFileSync(shell, SHELLS[shell]!, {
      cwd: join(folder, "home"),
      encoding: "utf8",
      env: {
        PATH: `${join(folder, "bin")}:${process.env.PATH}`,
        HOME: join(folder, "home"),
        ENLIGHTEN_STATE: join(folder, "state"),
        LINE: line,
      },
      stdio: ["ignore", "pipe", "inherit"],
    })
      .split("\n")
      .map((word) => word.split("\t")[0]!)
      .filter((word) => word !== "");

  for (const shell of Object.keys(SHELLS))
    it(`offers commands, options, values and guests in ${shell}`, () => {
      const first = offered(shell, "enlighten ");
      for (const word of ["run", "cp", "status", "debian:12-full"])
        assert.ok(first.includes(word), `${word}: ${first}`);
      assert.deepEqual(offered(shell, "enlighten st"), ["status", "stop"]);
      assert.deepEqual(offered(shell, "enlighten run --sh"), ["--share"]);
      assert.deepEqual(offered(shell, "enlighten run --net n"), ["nat", "none"]);
      // bash takes what is before a colon for another word
      const guests = offered(shell, "enlighten run debian:12-");
      assert.deepEqual(guests.map((word) => word.replace(/^debian:/, "")).sort(), ["12-full", "12-generic", "12-rt"]);
    });
  for (const [shell, files] of [
    ["zsh", "files"],
    ["fish", "web.txt"],
  ] as const)
    it(`leaves files to ${shell}`, () => {
      assert.deepEqual(offered(shell, "enlighten cp we"), [files]);
    });
});
