/** All cases. */
import type { Case } from "./case.js";
import { CONTROL } from "./cases-control.js";
import { DELIVERY } from "./cases-delivery.js";
import { FIRST } from "./cases-first.js";
import { FLOAT } from "./cases-float.js";
import { PAGING } from "./cases-paging.js";
import { PRIVILEGE } from "./cases-privilege.js";
import { SEGMENTS } from "./cases-segments.js";

export const CASES: readonly Case[] = [
  ...FIRST,
  ...PRIVILEGE,
  ...CONTROL,
  ...FLOAT,
  ...PAGING,
  ...DELIVERY,
  ...SEGMENTS,
];
