/** `enlighten inspect FILE`. */
import { inspectFile } from "../host/node/index.js";
import { describeFailure, ExitCode, reportFailure } from "./exit-codes.js";

export async function inspect(path: string, json: boolean): Promise<number> {
  try {
    const id = await inspectFile(path);
    const code = id.bootable.ok ? ExitCode.ok : ExitCode.cannotRun;
    if (json) {
      process.stdout.write(`${JSON.stringify({ file: path, ...id })}\n`);
      return code;
    }
    const line = (name: string, value: string | undefined): void => {
      if (value !== undefined && value !== "") process.stdout.write(`${name.padEnd(14)}${value}\n`);
    };
    line("format", id.description);
    line("architecture", id.architecture);
    line("kernel", id.kernelVersion);
    line("compression", id.compression);
    line("drivers", id.integrationDrivers?.join(" ") || undefined);
    line("boots", id.bootable.ok ? `yes (${id.bootable.method})` : `no: ${id.bootable.reason}`);
    if (!id.bootable.ok) line("try", id.bootable.hint);
    return code;
  } catch (error) {
    const failure = describeFailure(error);
    if (json) process.stdout.write(`${JSON.stringify({ file: path, error: failure })}\n`);
    else reportFailure(failure, error);
    return failure.exitCode;
  }
}
