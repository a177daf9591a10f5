/**
 * What the guest runs to take one command after the other while its shell has the console: each is a line of base64 on COM4,
 * a shell script; its output goes to COM2 and COM3, and "exit N" comes back on COM4 when both have left. "serving" says that the port
 * is open: what came before that was lost.
 */
export const COMMAND_SERVER = `( setsid -c sh -l <>/dev/ttyS0 >&0 2>&1; exec /sbin/poweroff ) &
exec 3<>/dev/ttyS3
echo serving >&3
while IFS= read -r line <&3; do
  echo "$line" | base64 -d >/run/command
  sh /run/command </dev/null 3>&- >/dev/ttyS1 2>/dev/ttyS2
  code=$?
  stty raw </dev/ttyS1
  stty raw </dev/ttyS2
  echo "exit $code" >&3
done
`;

/** A program with its arguments as a line of shell. */
export function shellWords(words: readonly string[]): string {
  return words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
}
