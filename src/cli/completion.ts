/** Completion for shells: what may stand where, from the commands themselves; and the few lines that each shell needs. */
import type { Command, Option } from "commander";
import { Registry } from "../host/node/control/registry.js";
import { stateFolder } from "../host/node/control/state-folder.js";

const COMPLETE = "__complete";
/** References that are likely to be meant. */
const GUESTS = ["debian:12", "debian:12-full", "debian:12-generic", "debian:12-rt", "debian:11", "debian:13"];
const ONE_NAME = new Set(["status", "exec", "console", "logs", "publish", "unpublish"]);

export interface Candidate {
  readonly word: string;
  readonly about: string;
}
const plain = (words: readonly string[]): Candidate[] => words.map((word) => ({ word, about: "" }));
const machines = (): string[] => new Registry(stateFolder(process.env)).list().map((e) => e.name);

/**
 * @param words what is behind the program's name; the last one is being written
 * @param names of machines (default: those that run)
 * @returns none where it is a file's turn, or nobody's
 */
export function candidates(program: Command, words: readonly string[], names = machines): Candidate[] {
  const partial = words.at(-1) ?? "";
  return all(program, words.slice(0, -1), partial, names).filter(({ word }) => word.startsWith(partial));
}
function all(program: Command, before: readonly string[], partial: string, names: () => string[]): Candidate[] {
  const visible = program.createHelp().visibleCommands(program);
  const found = visible.find((c) => c.name() === before[0]);
  if (before.length === 0 && !partial.startsWith("-"))
    return [...visible.map((c) => ({ word: c.name(), about: c.description() })), ...plain(GUESTS)];
  const run = visible.find((c) => c.name() === "run");
  const command = found ?? run;
  if (command === undefined) return [];
  if (before.includes("--")) return [];
  const { options, operands, waiting } = walk(command, found === undefined ? before : before.slice(1));
  if (waiting !== undefined) return values(waiting);
  const verb = command.name();
  // what is behind it is the command's
  if (verb === "exec" && operands.length > 1) return [];
  if (partial.startsWith("-"))
    return options
      .filter((o) => !o.hidden)
      .flatMap((o) => (o.long === undefined ? [] : [{ word: o.long, about: o.description }]));
  if (verb === "help") return operands.length === 0 ? plain(visible.map((c) => c.name())) : [];
  if (verb === "stop") return plain(names().filter((name) => !operands.includes(name)));
  // a path follows the colon; the shell adds this host's files
  if (verb === "cp") return partial.includes(":") ? [] : plain(names().map((name) => `${name}:`));
  if (operands.length > 0) return [];
  if (ONE_NAME.has(verb)) return plain(names());
  if (verb === "run") return plain(GUESTS);
  return verb === "completion" ? plain(SHELLS) : [];
}
/** What of a command's words is behind it. */
function walk(
  command: Command,
  words: readonly string[],
): { options: readonly Option[]; operands: string[]; waiting: Option | undefined } {
  const options = command.createHelp().visibleOptions(command);
  const operands: string[] = [];
  let waiting: Option | undefined;
  for (const word of words) {
    if (waiting !== undefined) {
      waiting = undefined;
      continue;
    }
    if (word.startsWith("-")) {
      const option = word.includes("=") ? undefined : options.find((o) => o.long === word || o.short === word);
      if (option?.required === true) waiting = option;
    } else operands.push(word);
  }
  return { options, operands, waiting };
}
function values(option: Option): Candidate[] {
  switch (option.long) {
    case "--net":
      return plain(["nat", "none"]);
    case "--cpu":
      return plain(["default", "max"]);
    case "--services":
      return plain(["none"]);
    case "--memory":
      return plain(["256M", "512M", "1G", "2G"]);
    default:
      return [];
  }
}

const SHELLS = ["bash", "zsh", "fish"] as const;
/** What a shell reads; undefined for one that is not known. */
export function script(shell: string): string | undefined {
  switch (shell) {
    case "bash":
      return BASH;
    case "zsh":
      return ZSH;
    case "fish":
      return FISH;
    default:
      return undefined;
  }
}
// bash takes a colon for the end of a word: words are cut from the line anew, and what it has of the last one is taken off again
const BASH = `# enlighten completion for bash:  source <(enlighten completion bash)
_enlighten() {
  local line="\${COMP_LINE:0:COMP_POINT}" word IFS=$' \\t\\n'
  local -a words
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  local partial="\${words[\${#words[@]}-1]}"
  IFS=$'\\n'
  COMPREPLY=($("\${words[0]}" ${COMPLETE} -- "\${words[@]:1}" 2>/dev/null | cut -f1))
  if [[ $partial == *:* ]]; then
    local before="\${partial%"\${partial##*:}"}" i
    for i in "\${!COMPREPLY[@]}"; do COMPREPLY[i]="\${COMPREPLY[i]#"$before"}"; done
  elif [[ "\${COMPREPLY[0]}" == *: ]]; then
    compopt -o nospace
    COMPREPLY+=($(compgen -f -- "$partial"))
  fi
}
complete -o default -F _enlighten enlighten
`;
const ZSH = `#compdef enlighten
# enlighten completion for zsh:  source <(enlighten completion zsh)
_enlighten() {
  local -a found
  found=("\${(@f)$("\${words[1]}" ${COMPLETE} -- "\${(@)words[2,CURRENT]}" 2>/dev/null | cut -f1)}")
  if [[ "\${found[1]}" == *: ]]; then compadd -S "" -a found; _files
  elif [[ -n "\${found[1]}" ]]; then compadd -a found
  else _files; fi
}
compdef _enlighten enlighten
`;
const FISH = `# enlighten completion for fish:  enlighten completion fish | source
function __enlighten_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l found ($words[1] ${COMPLETE} -- $words[2..-1] 2>/dev/null)
  if test (count $found) -gt 0
    printf '%s\\n' $found
    string match -q -- '*:' (string split -f1 \\t -- $found[1]); and __fish_complete_path (commandline -ct)
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c enlighten -f -a '(__enlighten_complete)'
`;
