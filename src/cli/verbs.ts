/** The verbs that talk to named machines: their options. Each is loaded when it is asked for. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { describeFailure, reportFailure } from "./exit-codes.js";

const VERBS = new Set(["ps", "status", "stop", "exec", "console", "logs", "cp", "publish", "unpublish"]);
export const isVerb = (word: string | undefined): boolean => word !== undefined && VERBS.has(word);

function seconds(text: string): number {
  const n = Number(text);
  if (!(n > 0 && n <= 2_000_000)) throw new InvalidArgumentError("give a number of seconds above 0, at most 2000000.");
  return n;
}
function lines(text: string): number {
  const n = Number(text);
  if (!(Number.isSafeInteger(n) && n >= 0)) throw new InvalidArgumentError("give a number of lines.");
  return n;
}
const examples = (...list: readonly string[]): string =>
  `\nExamples:\n${list.map((line) => `  $ enlighten ${line}\n`).join("")}`;

/** A verb's work; what fails becomes a message and an exit code. */
async function does(work: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await work();
  } catch (error) {
    const failure = describeFailure(error);
    reportFailure(failure, error);
    process.exitCode = failure.exitCode;
  }
}

export function addVerbs(program: Command): void {
  program
    .command("ps")
    .description("list the VMs that run: those with a name")
    .option("--json", "as JSON, one object a line")
    .option("-q, --quiet", "names alone")
    .addHelpText("after", examples("ps", "ps --json", "stop $(enlighten ps -q)"))
    .action((o: { json?: boolean; quiet?: boolean }) => does(async () => (await import("./named/ps.js")).ps(o)));

  program
    .command("status")
    .description("say how a VM is: processor, memory, devices, network, commands")
    .argument("<name>")
    .option("-w, --watch", "again and again, with rates, until Ctrl-C")
    .option("--interval <seconds>", "with --watch: the time between two looks", seconds, 2)
    .option("--json", "as JSON, one object a line")
    .addHelpText("after", examples("status web", "status web --watch", "status web --json"))
    .action((name: string, o: { json?: boolean; watch?: boolean; interval: number }) =>
      does(async () => (await import("./named/status.js")).status(name, o)),
    );

  program
    .command("stop")
    .description("ask guests to power off, and wait until they have; prints the names of those that did")
    .argument("[names...]")
    .option("-f, --force", "end them at once, without asking")
    .option("-a, --all", "all VMs that run")
    .option(
      "-t, --timeout <seconds>",
      "how long a guest may take; then it runs on, and the exit code is 124",
      seconds,
      60,
    )
    .addHelpText("after", examples("stop web", "stop web db --timeout 20", "stop --all --force"))
    .action((names: string[], o: { force?: boolean; all?: boolean; timeout: number }) =>
      does(async () => (await import("./named/stop.js")).stop(names, o)),
    );

  program
    .command("exec")
    .description("run a command in a guest; its output and exit code are ours")
    .argument("<name>")
    .argument("[command...]", "default, on a terminal: a login shell")
    .option("-i, --interactive", "standard input is the command's")
    .option("-t, --tty", "give it a terminal (what is done anyway where this is one)")
    .option("--no-tty", "give it none")
    .option(
      "-e, --env <name=value>",
      "a variable of its environment; NAME alone: this one's (repeat for more)",
      collect,
      [],
    )
    .option("-w, --cwd <folder>", "where it runs (default: the user's home)")
    .option("-u, --user <name>", "as whom, by name or number (default: root)")
    .option("-d, --detach", "do not wait: prints its number, and logs NAME --exec NUMBER its output")
    .option("--timeout <seconds>", "end it after this time with code 124", seconds)
    .addHelpText(
      "after",
      examples(
        "exec web -- uname -a",
        "exec web",
        "exec -it web -- top",
        "exec -i web -- sh -c 'cat >/root/file' <file",
        "exec -e LANG=C.UTF-8 -w /tmp -u nobody web -- env",
        "exec --detach web -- sleep 100",
      ),
    )
    .action((name: string, command: string[], o: Parameters<typeof import("./named/exec.js").exec>[2]) =>
      does(async () => (await import("./named/exec.js")).exec(name, command, o)),
    );

  program
    .command("console")
    .description("attach this terminal to a VM's console; Ctrl-] then q leaves it")
    .argument("<name>")
    .option("--read-only", "look, but do not type")
    .addHelpText("after", examples("console web", "console web --read-only"))
    .action((name: string, o: { readOnly?: boolean }) =>
      does(async () => (await import("./named/console.js")).attach(name, o)),
    );

  program
    .command("logs")
    .description("print what a VM's console showed, also of one that has ended")
    .argument("<name>")
    .option("-f, --follow", "go on as it comes, until the VM ends")
    .option("-n, --tail <lines>", "the last lines alone", lines)
    .option("--exec <number>", "what a detached command wrote (0: that of run --exec --detach)")
    .addOption(new Option("--process", "what the VM's own process had to say").conflicts("exec"))
    .addHelpText("after", examples("logs web", "logs web --tail 20 --follow", "logs web --exec 1"))
    .action((name: string, o: Parameters<typeof import("./named/logs.js").logs>[1]) =>
      does(async () => (await import("./named/logs.js")).logs(name, o)),
    );

  program
    .command("cp")
    .description("copy files and trees between this host and a VM, as cp -a does")
    .argument("<paths...>", "sources and a destination; NAME:PATH is in a VM, - standard input or output")
    .option("-u, --user <name>", "as whom in the guest, by name or number (default: root)")
    .option("-t, --timeout <seconds>", "give up after this time with code 124", seconds)
    .option("--json", "events as JSON, one object a line")
    .addHelpText(
      "after",
      `
A folder that is there is copied into; FOLDER/. is what is in the folder. Several sources need a folder that is there.
Paths in a guest begin at its root. What has a colon in its name on this host is ./NAME:WITH-COLON.
${examples(
  "cp app.tar web:/root",
  "cp build/. web:/srv/www",
  "cp web:/var/log logs",
  "cp -u nobody a.txt b.txt web:/tmp",
  "cp web:/etc/hostname -",
  "cp - web:/etc/motd <motd",
)}`,
    )
    .action((paths: string[], o: Parameters<typeof import("./named/cp.js").cp>[1]) =>
      does(async () => (await import("./named/cp.js")).cp(paths, o)),
    );

  program
    .command("publish")
    .description("make a port of this host lead to one of a guest")
    .argument("<name>")
    .argument("<[address:]port:guest-port[/udp]>")
    .addHelpText("after", examples("publish web 8080:80", "publish web 0:22"))
    .action((name: string, port: string) => does(async () => (await import("./named/ports.js")).publish(name, port)));
  program
    .command("unpublish")
    .description("take a port back; connections that are open stay")
    .argument("<name>")
    .argument("<port[/udp]>", "of this host", hostPort)
    .addHelpText("after", examples("unpublish web 8080"))
    .action((name: string, { port, protocol }: ReturnType<typeof hostPort>) =>
      does(async () => (await import("./named/ports.js")).unpublish(name, port, protocol)),
    );
}

/** Options of exec that have a value of their own. */
const WITH_VALUE = /^(-[ewu]|--env|--cwd|--user|--timeout)$/;
/**
 * `exec NAME uname -a`: what is behind the command's first word is the command's, whatever it looks like. Options of ours stand
 * before it, or before "--".
 */
export function separateCommand(words: readonly string[]): string[] {
  let operands = 0;
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (word === "--") break;
    if (WITH_VALUE.test(word)) i++;
    else if ((word === "-" || !word.startsWith("-")) && ++operands === 2)
      return [...words.slice(0, i), "--", ...words.slice(i)];
  }
  return [...words];
}
function collect(text: string, all: string[]): string[] {
  return [...all, text];
}
function hostPort(text: string): { readonly port: number; readonly protocol: "tcp" | "udp" } {
  const match = /^(\d{1,5})(?:\/(tcp|udp))?$/.exec(text);
  const port = Number(match?.[1]);
  if (match === null || port < 1 || port > 65535) throw new InvalidArgumentError("give a port, like 8080 or 53/udp.");
  return { port, protocol: match[2] === "udp" ? "udp" : "tcp" };
}
