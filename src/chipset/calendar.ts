/**
 * Civil dates for the RTC: seconds since 1970-01-01 00:00:00 UTC to calendar fields and back, in the proleptic
 * Gregorian calendar, in whole numbers and without allocation.
 */

/** Written by `civil`; a scratch object of its caller. */
export interface CivilTime {
  year: number;
  /** 1..12 */
  month: number;
  /** 1..31 */
  day: number;
  hour: number;
  minute: number;
  second: number;
  /** 1 = Sunday, as the MC146818 counts. */
  weekday: number;
}

export const newCivilTime = (): CivilTime => ({
  year: 1970,
  month: 1,
  day: 1,
  hour: 0,
  minute: 0,
  second: 0,
  weekday: 5,
});

const DAY = 86_400;
/** Days from 0000-03-01 to 1970-01-01; years that begin in March put the leap day at their end. */
const DAYS_TO_1970 = 719_468;
const DAYS_PER_400_YEARS = 146_097;

/** Fills `out` with the calendar fields of a time. */
export function civil(epochSeconds: number, out: CivilTime): void {
  const days = Math.floor(epochSeconds / DAY);
  const inDay = epochSeconds - days * DAY;
  out.hour = Math.floor(inDay / 3600);
  out.minute = Math.floor(inDay / 60) % 60;
  out.second = inDay % 60;
  out.weekday = ((((days + 4) % 7) + 7) % 7) + 1; // 1970-01-01 was a Thursday
  const shifted = days + DAYS_TO_1970;
  const era = Math.floor(shifted / DAYS_PER_400_YEARS);
  const dayOfEra = shifted - era * DAYS_PER_400_YEARS;
  const yearOfEra = Math.floor(
    (dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) - Math.floor(dayOfEra / 146_096)) / 365,
  );
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const marchMonth = Math.floor((5 * dayOfYear + 2) / 153);
  out.day = dayOfYear - Math.floor((153 * marchMonth + 2) / 5) + 1;
  out.month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9;
  out.year = yearOfEra + era * 400 + (out.month <= 2 ? 1 : 0);
}

/** The time that these fields name. Fields out of range carry over; the weekday is ignored. */
export function epochSeconds(t: CivilTime): number {
  const months = t.year * 12 + (t.month - 1) - 2; // count years from March
  const year = Math.floor(months / 12);
  const marchMonth = months - year * 12;
  const era = Math.floor(year / 400);
  const yearOfEra = year - era * 400;
  const dayOfYear = Math.floor((153 * marchMonth + 2) / 5) + t.day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  const days = era * DAYS_PER_400_YEARS + dayOfEra - DAYS_TO_1970;
  return days * DAY + t.hour * 3600 + t.minute * 60 + t.second;
}
