/** Shared folders for people. */
export function shareLines(
  shares: readonly { readonly directory: string; readonly mountPoint: string; readonly readOnly: boolean }[],
): string[] {
  return shares.map(
    ({ directory, mountPoint, readOnly }) => `share  ${mountPoint} is ${directory}${readOnly ? ", read only" : ""}`,
  );
}
