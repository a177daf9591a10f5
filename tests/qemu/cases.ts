/** All cases. */
import type { Case } from "./case.js";
import { FIRST } from "./cases-first.js";

export const CASES: readonly Case[] = [...FIRST];
