/** All cases. */
import type { Case } from "./case.js";
import { CONTROL } from "./cases-control.js";
import { DEBUG } from "./cases-debug.js";
import { DELIVERY } from "./cases-delivery.js";
import { FIRST } from "./cases-first.js";
import { FLOAT } from "./cases-float.js";
import { OTHER } from "./cases-other.js";
import { PAGING } from "./cases-paging.js";
import { PRIVILEGE } from "./cases-privilege.js";
import { SEGMENTS } from "./cases-segments.js";
import { STRINGS } from "./cases-strings.js";

export const CASES: readonly Case[] = [
  ...FIRST,
  ...PRIVILEGE,
  ...CONTROL,
  ...FLOAT,
  ...PAGING,
  ...DELIVERY,
  ...SEGMENTS,
  ...STRINGS,
  ...DEBUG,
  ...OTHER,
];
