/** The guest's console on this terminal: raw keys in, bytes out, Ctrl-] for the menu. In a pipe: plain bytes both ways. */
const ESCAPE = 0x1d; // Ctrl-]

const help = (leave: string): string => `
  q  ${leave.padEnd(36)} s  status
  b  press the power button               ]  send Ctrl-] to the guest
  ?  this help                            any other key: back to the guest
`;

/** The machine, as a terminal sees it. */
export interface ConsoleTarget {
  isRunning(): boolean;
  write(bytes: Uint8Array): void;
  pressPowerButton(): void;
  /** Input from a pipe waits for it. */
  ready(): Promise<void>;
  /** A pipe has ended. */
  ended(): void;
}

export interface TerminalHooks {
  /** What leaving means. */
  readonly leave: string;
  /** The user wants to leave. */
  readonly onQuit: () => void;
  readonly status: () => Promise<string>;
}

/** Attaches standard input. @returns what restores the terminal; call it on every way out. */
export function attachTerminal(target: ConsoleTarget, hooks: TerminalHooks): () => void {
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
        target.pressPowerButton();
        say("\npower button pressed\n");
        break;
      case "?":
        say(help(hooks.leave));
        inMenu = true;
        break;
      case "]":
        target.write(Uint8Array.of(ESCAPE));
        break;
    }
  };
  const onData = (chunk: Buffer): void => {
    if (!target.isRunning()) return;
    if (!raw) {
      target.write(chunk);
      return;
    }
    let from = 0;
    for (let i = 0; i < chunk.length; i++) {
      if (!target.isRunning()) return;
      if (inMenu) {
        menu(chunk[i]!);
        from = i + 1;
      } else if (chunk[i] === ESCAPE) {
        if (i > from) target.write(chunk.subarray(from, i));
        from = i + 1;
        inMenu = true;
        say(`\n[enlighten: q ${hooks.leave.split(":")[0]}, s status, b power button, ? help] `);
      }
    }
    if (from < chunk.length && target.isRunning()) target.write(chunk.subarray(from));
  };
  const onEnd = (): void => {
    if (target.isRunning()) target.ended();
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
  else target.ready().then(listen, () => {});
  return () => {
    attached = false;
    if (raw) stdin.setRawMode(false);
    stdin.off("data", onData);
    stdin.off("end", onEnd);
    stdin.pause();
    stdin.unref?.();
  };
}
