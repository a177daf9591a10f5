/** Regions under stress, as the environment asks for it (cpu/region/stress.ts). */
import { setFlagsFromString } from "node:v8";
import { parseStress, type Stress } from "../../cpu/region/stress.js";

/** Of ENLIGHTEN_STRESS. Sets the engine's flags too, for what is compiled from now on. */
export function stressFromEnvironment(): Stress | undefined {
  const names = process.env.ENLIGHTEN_STRESS;
  const stress = parseStress(names);
  setCompiler(names ?? "");
  return stress;
}
/** V8 has its first compiler only ("liftoff" is among the names), its second only ("turbofan"), or both. */
export function setCompiler(names: string): void {
  setFlagsFromString(names.includes("liftoff") ? "--liftoff-only" : "--no-liftoff-only");
  setFlagsFromString(names.includes("turbofan") ? "--no-liftoff" : "--liftoff");
}
