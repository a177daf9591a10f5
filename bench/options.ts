/** Options of the benchmarks: what is asked for wrongly gets a line, and --help the text. */
import { type ParseArgsConfig, parseArgs } from "node:util";

type Options = NonNullable<ParseArgsConfig["options"]>;
type Parsed<T extends Options> = ReturnType<typeof parseArgs<{ options: T; allowPositionals: true }>>;

/**
 * Ends the process for --help, and with exit code 2 for what is no option.
 * @param help whose first line begins with how it is called
 */
export function readOptions<const T extends Options>(help: string, options: T, takesNames = false): Parsed<T> {
  if (process.argv.slice(2).some((arg) => arg === "--help" || arg === "-h")) {
    console.log(help);
    process.exit(0);
  }
  try {
    return parseArgs({ options, allowPositionals: takesNames }) as Parsed<T>;
  } catch (error) {
    const [call] = /^npm run bench -- \w+/.exec(help)!;
    // the first sentence; what follows is for programs that take such names
    console.error(`${(error as Error).message.split(". ")[0]}\n  try: ${call} --help`);
    process.exit(2);
  }
}
