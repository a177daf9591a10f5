#!/usr/bin/env node
/** The program: commands and options (product.md). Work is in the files named after the commands. */
import { Command } from "commander";
import { optimizeLess } from "../host/node/engine-flags.js";
import { addVerbs, isVerb, separateCommand } from "./verbs.js";

optimizeLess();

/** Hidden: what shells ask (completion.ts). */
const COMPLETE = "__complete";

const program = new Command("enlighten")
  .description("A Hyper-V-compatible hypervisor in TypeScript: boots real x86-64 Linux in plain Node.")
  .version("0.1.0")
  // what is behind the command of exec is the command's
  .enablePositionalOptions()
  .showHelpAfterError("(enlighten --help shows the commands, enlighten run --help the options)")
  .exitOverride((e) => process.exit(e.exitCode === 0 ? 0 : 2));

// what its options need takes time to load, and a verb that talks to a machine should be there at once
if (!isVerb(process.argv[2])) {
  const { addRun } = await import("./run-command.js");
  addRun(program);
}
program
  .command("inspect")
  .description("say what an image is, and whether it can run here")
  .argument("<file>")
  .option("--json", "as JSON")
  .action(async (file: string, options: { json?: boolean }) => {
    const { inspect } = await import("./inspect.js");
    process.exitCode = await inspect(file, options.json === true);
  });

addVerbs(program);

program
  .command("completion")
  .description("print what completes commands, options, VMs and guests in a shell")
  .argument("<shell>", "bash, zsh or fish")
  .addHelpText(
    "after",
    `
Examples:
  $ source <(enlighten completion bash)
  $ enlighten completion zsh >"\${fpath[1]}/_enlighten"
  $ enlighten completion fish >~/.config/fish/completions/enlighten.fish
`,
  )
  .action(async (shell: string) => {
    const { script } = await import("./completion.js");
    const text = script(shell);
    if (text === undefined)
      program.error(`error: there is no completion for "${shell}"; there is for bash, zsh and fish`);
    else process.stdout.write(text);
  });
program
  .command(COMPLETE, { hidden: true })
  .argument("[words...]")
  .action(async (words: string[]) => {
    const { candidates } = await import("./completion.js");
    process.stdout.write(
      candidates(program, words)
        .map(({ word, about }) => `${word}\t${about}\n`)
        .join(""),
    );
  });

// a reader that has gone (| head): there is nobody to talk to any more
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (e: NodeJS.ErrnoException) => process.exit(e.code === "EPIPE" ? 141 : 125));

const [verb, ...words] = process.argv.slice(2);
await program.parseAsync(verb === "exec" ? [verb, ...separateCommand(words)] : process.argv.slice(2), { from: "user" });
// a worker or a socket that still ends must not hold the exit; streams are flushed by then
const code = process.exitCode ?? 0;
const drained = (s: NodeJS.WriteStream): Promise<void> => new Promise((r) => s.write("", () => r()));
await Promise.all([drained(process.stdout), drained(process.stderr)]);
process.exit(code);
