/** Words of the command line: what is the command's, and what completes where. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Command } from "commander";
import { candidates, script } from "./completion.js";
import { addRun } from "./run-command.js";
import { addVerbs, separateCommand } from "./verbs.js";

describe("exec's command", () => {
  it("begins at its second operand, whatever is behind it", () => {
    const separated = (line: string): string => separateCommand(line.split(" ")).join(" ");
    assert.equal(separated("web uname -a"), "web -- uname -a");
    assert.equal(separated("-it -e A=b web sh -c x"), "-it -e A=b web -- sh -c x");
    assert.equal(separated("web -i --env A=b --user u cat -n"), "web -i --env A=b --user u -- cat -n");
    assert.equal(separated("web -- sh -c x"), "web -- sh -c x");
    assert.equal(separated("web -i -- -odd name"), "web -i -- -odd name");
    assert.equal(separated("--cwd=/tmp web ls --all -- x"), "--cwd=/tmp web -- ls --all -- x");
    assert.equal(separated("web"), "web");
    assert.equal(separated("web cat -"), "web -- cat -");
  });
});

describe("completion", () => {
  const program = new Command("enlighten").enablePositionalOptions();
  addRun(program);
  addVerbs(program);
  const names = (): string[] => ["web", "worker", "db"];
  const words = (...line: string[]): string[] => candidates(program, line, names).map((c) => c.word);

  it("knows verbs, guests, options, values and machines", () => {
    assert.deepEqual(words("st"), ["status", "stop"]);
    assert.deepEqual(words("debian:12-f"), ["debian:12-full"]);
    assert.deepEqual(words("run", "debian:13"), ["debian:13"]);
    assert.deepEqual(words("run", "--pub"), ["--publish"]);
    // run is what is meant where no verb is
    assert.deepEqual(words("debian:12", "--det"), ["--detach", "--deterministic"]);
    assert.deepEqual(words("run", "--net", ""), ["nat", "none"]);
    assert.deepEqual(words("status", ""), ["web", "worker", "db"]);
    assert.deepEqual(words("status", "w"), ["web", "worker"]);
    assert.deepEqual(words("stop", "web", "w"), ["worker"]);
    assert.deepEqual(words("exec", "-e", "w"), []);
    assert.deepEqual(words("exec", "-e", "A=b", "w"), ["web", "worker"]);
    assert.ok(words("exec", "web", "-").includes("--detach"));
    assert.deepEqual(words("cp", "w"), ["web:", "worker:"]);
    assert.deepEqual(words("cp", "-u", "w"), []);
    assert.deepEqual(words("cp", "file", "d"), ["db:"]);
  });
  it("leaves a guest's command, and files, to the shell", () => {
    for (const line of [
      ["exec", "web", "ls", "-"],
      ["exec", "web", "--", "w"],
      ["inspect", ""],
      ["run", "--disk", ""],
      ["status", "web", ""],
      ["cp", "web:/"],
    ])
      assert.deepEqual(words(...line), [], line.join(" "));
  });
  it("never tells what is hidden", () => {
    assert.ok(!words("run", "--").includes("--detached-child"));
    assert.ok(!words("").some((w) => w.startsWith("_")));
  });
  it("is there for three shells", () => {
    for (const shell of ["bash", "zsh", "fish"]) assert.match(script(shell) ?? "", /__complete/);
    assert.equal(script("csh"), undefined);
  });
});
