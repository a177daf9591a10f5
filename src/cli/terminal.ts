/** The guest's console on this terminal: raw keys in, bytes out, Ctrl-] for the menu. In a pipe: plain bytes both ways. */
import type { Vm } from "../vm/index.js";

const ESCAPE = 0x1d; // Ctrl-]

const HELP = `
  q  quit: end the machine at once        s  status
  b  press the power button               ]  send Ctrl-] to the guest
  ?  this help                            any other key: back to the guest
`;

export interface TerminalHooks {
  /** The user wants to leave. */
  readonly onQuit: () => void;
  readonly status: () => Promise<string>;
}

/** Attaches standard input. @returns what restores the terminal; call it on every way out. */
export function attachTerminal(vm: Vm, hooks: TerminalHooks): () => void {
  const { stdin, stdout } = process;
  const raw = stdin.isTTY === true;
  let inMenu = false;
  const say = (text: string): void => void stdout.write(text.replaceAll("\n", "\r\n"));
  const menu = (key: number): void => {
    inMenu = false;
    switch (String.fromCharCode(key)) {
      case "q":
        hooks.onQuit();
        break;
      case "s":
        hooks.status().then(
          (text) => say(`\n${text}\n`),
          (e: Error) => say(`\n${e.message.split("\n")[0]}\n`),
        );
        break;
      case "b":
        vm.pressPowerButton();
        say("\npower button pressed\n");
        break;
      case "?":
        say(HELP);
        inMenu = true;
        break;
      case "]":
        vm.write(Uint8Array.of(ESCAPE));
        break;
    }
  };
  const onData = (chunk: Buffer): void => {
    if (vm.state !== "running") return;
    if (!raw) {
      vm.write(chunk);
      return;
    }
    let from = 0;
    for (let i = 0; i < chunk.length; i++) {
      if (vm.state !== "running") return;
      if (inMenu) {
        menu(chunk[i]!);
        from = i + 1;
      } else if (chunk[i] === ESCAPE) {
        if (i > from) vm.write(chunk.subarray(from, i));
        from = i + 1;
        inMenu = true;
        say("\n[enlighten: q quit, s status, b power button, ? help] ");
      }
    }
    if (from < chunk.length && vm.state === "running") vm.write(chunk.subarray(from));
  };
  const onEnd = (): void => {
    // a pipe that ended: what Ctrl-D says on a terminal
    if (vm.state === "running") vm.write(Uint8Array.of(4));
  };
  if (raw) stdin.setRawMode(true);
  let attached = true;
  const listen = (): void => {
    if (!attached) return;
    stdin.on("data", onData);
    stdin.on("end", onEnd);
    stdin.resume();
  };
  // what comes from a pipe waits for the shell: a console takes what is typed before only in part
  if (raw) listen();
  else vm.waitForPrompt().then(listen, () => {});
  return () => {
    attached = false;
    if (raw) stdin.setRawMode(false);
    stdin.off("data", onData);
    stdin.off("end", onEnd);
    stdin.pause();
    stdin.unref?.();
  };
}
