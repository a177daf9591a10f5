/**
 * How much a TCP sender may have on its way, and what of it is lost: RFC 5681 (congestion control), RFC 6582 (NewReno, for peers without
 * selective acknowledgements), RFC 6675 (recovery by the scoreboard), RFC 8985 (the probe of the tail).
 *
 * There is no window before the first loss: the link to a guest is memory, and has no queue that could be filled.
 */
import type { TcpHeader } from "./header.js";
import { type Hole, Scoreboard } from "./scoreboard.js";

/** More than any window. */
export const UNLIMITED = 0x4000_0000;

/** The state of one sender. `una` and `max` are its SND.UNA and the highest SND.NXT so far. */
export class Congestion {
  /** What the peer has beyond `una`. */
  readonly sacks = new Scoreboard();
  inRecovery = false;
  /** What is missing below it was sent again in this recovery: RFC 6675 "HighRxt". */
  highRxt = 0;
  /** Where a probe of the tail begins that has not been answered. */
  tailProbe: number | undefined;

  #cwnd = UNLIMITED;
  #ssthresh = UNLIMITED;
  #dupAcks = 0;
  /** RFC 6582 "recover": a recovery is over there; none begins before. */
  #recover: number;
  /** The recovery goes by the scoreboard. */
  #bySack = false;
  /** A probe came where nothing else had come: all that is missing below what the peer has is lost. */
  #isAllLost = false;

  /** @param iss the initial sequence number */
  constructor(iss: number) {
    this.#recover = iss;
  }

  /** In a recovery by the scoreboard. */
  get bySack(): boolean {
    return this.inRecovery && this.#bySack;
  }

  /** @returns whether the peer has something that it had not said */
  takeSacks(h: TcpHeader, una: number, max: number): boolean {
    let news = false;
    for (let i = 0; i < h.sackCount; i++) {
      const left = h.sackEdges[2 * i]!;
      const right = h.sackEdges[2 * i + 1]!;
      if (!this.sacks.add(left, right, una, max)) continue;
      news = true;
      const probe = this.tailProbe;
      if (probe !== undefined && ((probe - left) | 0) >= 0 && ((right - probe) | 0) > 0) {
        this.#isAllLost = true;
        this.highRxt = una; // and what was sent again before the probe
      }
    }
    return news;
  }

  /** Something new is acknowledged. @returns whether the first of what is missing is to be sent again at once */
  advance(ack: number, fresh: number, hasSack: boolean, mss: number): boolean {
    this.#dupAcks = 0;
    this.tailProbe = undefined;
    this.sacks.advance(ack);
    if (this.sacks.count === 0) this.#isAllLost = false;
    if (((ack - this.highRxt) | 0) > 0) this.highRxt = ack;
    const isPast = ((ack - this.#recover) | 0) >= 0;
    let again = false;
    if (this.inRecovery) {
      if (isPast) {
        this.inRecovery = this.#isAllLost = false;
        this.#cwnd = this.#ssthresh;
      } else if (!this.#bySack) {
        // RFC 6582: what follows the hole that was filled is lost too
        this.#cwnd = Math.max(mss, this.#cwnd - fresh + mss);
        again = true;
      }
    } else if (this.#cwnd < UNLIMITED)
      this.#cwnd += this.#cwnd < this.#ssthresh ? Math.max(mss, fresh) : Math.ceil((mss * fresh) / this.#cwnd);
    // RFC 6582 waits for one more byte, lest what was sent again for nothing counts as lost: selective acknowledgements say what that was
    if (hasSack && isPast) this.#recover = (ack - 1) | 0;
    return again;
  }

  /** RFC 5681 "Fast Retransmit/Fast Recovery": one more acknowledgement of the same. */
  duplicate(mss: number): void {
    this.#dupAcks++;
    if (this.inRecovery && !this.#bySack) this.#cwnd = Math.min(UNLIMITED, this.#cwnd + mss);
  }

  /** Begins a recovery if something is lost by what is known. @returns whether it did: the first of what is missing is to be sent again */
  isLossSeen(una: number, max: number, mss: number): boolean {
    if (this.inRecovery || ((una - this.#recover) | 0) <= 0) return false;
    if (this.#dupAcks !== 3 && !this.sacks.isFirstLost(this.#lossMss(mss))) return false;
    this.inRecovery = true;
    this.#bySack = this.sacks.count > 0;
    this.#ssthresh = Math.max(((max - una) | 0) >> 1, 2 * mss);
    this.#cwnd = this.#bySack ? this.#ssthresh : this.#ssthresh + 3 * mss;
    this.#recover = max;
    this.highRxt = una;
    return true;
  }

  /** RFC 5681: what is on its way counts as lost; the first segment goes again, the others as acknowledgements come. */
  timeout(una: number, max: number, mss: number): void {
    this.#ssthresh = Math.max(((max - una) | 0) >> 1, 2 * mss);
    this.#cwnd = mss;
    this.inRecovery = this.#isAllLost = false;
    this.tailProbe = undefined;
    this.sacks.clear(); // the peer may have thrown it away: RFC 2018 "Data Receiver Reneging"
    this.#recover = max;
    this.#dupAcks = 0;
  }

  /** Bytes that may be sent now. */
  room(una: number, nxt: number, max: number, mss: number): number {
    if (this.bySack) {
      const room = (this.#cwnd - this.sacks.pipe(una, max, this.highRxt, this.#lossMss(mss))) | 0;
      return room < mss ? 0 : room;
    }
    return (this.#cwnd - (((nxt - una) | 0) - this.sacks.below(nxt))) | 0;
  }

  /** RFC 6675 "NextSeg ()". @param onlyLost rule (1), else (3) */
  nextHole(una: number, onlyLost: boolean, mss: number): Hole | undefined {
    const from = ((this.highRxt - una) | 0) < 0 ? una : this.highRxt;
    return this.sacks.nextHole(from, onlyLost ? this.#lossMss(mss) : 0);
  }

  /** Of so many bytes is a segment by which something else counts as lost. */
  #lossMss(mss: number): number {
    return this.#isAllLost ? 0 : mss;
  }
}
