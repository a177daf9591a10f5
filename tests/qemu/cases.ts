/** All cases. */
import type { Case } from "./case.js";
import { BASIC } from "./cases-basic.js";
import { CONTROL } from "./cases-control.js";
import { DEBUG } from "./cases-debug.js";
import { DELIVERY } from "./cases-delivery.js";
import { FLOAT } from "./cases-float.js";
import { OTHER } from "./cases-other.js";
import { PAGING } from "./cases-paging.js";
import { PRIVILEGE } from "./cases-privilege.js";
import { SEGMENTS } from "./cases-segments.js";
import { STRINGS } from "./cases-strings.js";
import { TRANSFERS } from "./cases-transfers.js";

export const CASES: readonly Case[] = [
  ...BASIC,
  ...PRIVILEGE,
  ...CONTROL,
  ...FLOAT,
  ...PAGING,
  ...DELIVERY,
  ...SEGMENTS,
  ...TRANSFERS,
  ...STRINGS,
  ...DEBUG,
  ...OTHER,
];
