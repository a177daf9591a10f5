/** Errors of the network, as the API tells them. */
import type { PlainError } from "./device-messages.js";
import { VmError } from "./vm-error.js";

export function networkFailure({ code, message, hint }: PlainError): VmError {
  if (code === "port-in-use") return new VmError("port-in-use", message, hint);
  return new VmError(code.startsWith("bad-") ? "bad-option" : "network", message, hint);
}
