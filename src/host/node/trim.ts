/**
 * A kernel's images are some 100 MB of buffers that live for a moment: V8 would keep them until it needs the room. This asks it
 * to look now; where it cannot be asked, nothing happens.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

let collect: (() => void) | undefined;

export function trim(): void {
  if (collect === undefined) {
    try {
      setFlagsFromString("--expose-gc");
      collect = runInNewContext("gc") as () => void;
    } catch {
      collect = () => {};
    }
  }
  collect();
}
