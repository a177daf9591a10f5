/** What the tests of the network have in common where their guest is debian:12-full. */

/** One list for all of them, so that one disk is made. */
export const NETWORK_PACKAGES: readonly string[] = ["ethtool", "git"];
export const FULL_BOOT_MS = 300_000;
