/** Which of Hyper-V's drivers are built into a kernel: a best effort, by the names the drivers register under. */
import { encodeUtf8 } from "./byte-reader.js";
import { type Elf, sectionBytes } from "./elf.js";

/** Driver to a zero-ended text that a kernel has only with it built in. */
const MARKS: Record<string, string> = {
  hv_vmbus: "hv_vmbus.max_version",
  hv_storvsc: "hv_storvsc",
  hv_netvsc: "hv_netvsc",
  hv_utils: "hv_utils",
  hv_balloon: "hv_balloon",
  hyperv_keyboard: "hyperv_keyboard",
  hid_hyperv: "hid_hyperv",
  hyperv_fb: "hyperv_fb",
  hyperv_drm: "hyperv_drm",
  pci_hyperv: "hv_pci",
  hv_sock: "hv_sock",
};

/** Whether `text`, between zero bytes, is in `bytes`. */
function hasText(bytes: Uint8Array, text: Uint8Array): boolean {
  const first = text[0]!;
  for (let at = bytes.indexOf(first); at >= 0; at = bytes.indexOf(first, at + 1)) {
    if (at > 0 && bytes[at - 1] !== 0) continue;
    let i = 1;
    while (i < text.length && bytes[at + i] === text[i]) i++;
    if (i === text.length && bytes[at + i] === 0) return true;
  }
  return false;
}

/** @param kernel an unpacked kernel and its headers */
export function integrationDrivers(elf: Elf, kernel: Uint8Array): string[] {
  const places = [".rodata", ".rodata.str", "__param"].map((name) => sectionBytes(elf, kernel, name));
  const texts = places.filter((bytes) => bytes !== undefined);
  return Object.keys(MARKS).filter((driver) => texts.some((bytes) => hasText(bytes, encodeUtf8(MARKS[driver]!))));
}
