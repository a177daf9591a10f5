/** Regions under stress, as the environment asks for it (cpu/region/stress.ts). */
import { setFlagsFromString } from "node:v8";
import { parseStress, type Stress } from "../../cpu/region/stress.js";

/** Of ENLIGHTEN_STRESS; "liftoff" leaves the engine its first compiler only. Call it before there is a machine. */
export function stressFromEnvironment(): Stress | undefined {
  const names = process.env.ENLIGHTEN_STRESS;
  const stress = parseStress(names);
  if (names?.split(",").includes("liftoff")) setFlagsFromString("--liftoff-only");
  return stress;
}
