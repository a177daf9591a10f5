/** How long a TCP sender waits for an answer: RFC 6298 (retransmission timer), RFC 8985 (tail loss probe). Times are in nanoseconds. */

const INITIAL_RTO_NS = 1e9;
/** As RFC 6298 says. Other stacks take less; here nothing is lost by itself, but a guest may be slow to answer. */
const MIN_RTO_NS = 1e9;
/** Also the most that doubling makes of it. */
export const MAX_RTO_NS = 60e9;
/** Not sooner, for the same reason: a probe for nothing is a segment sent twice. */
const MIN_PROBE_NS = 50e6;

/** The estimate of one sender. */
export class RoundTrip {
  /** RFC 6298 "RTO". */
  rto = INITIAL_RTO_NS;
  #srtt = -1;
  #rttvar = 0;

  /** RFC 6298 "The Basic Algorithm" */
  measured(rtt: number): void {
    if (this.#srtt < 0) {
      this.#srtt = rtt;
      this.#rttvar = rtt / 2;
    } else {
      this.#rttvar = 0.75 * this.#rttvar + 0.25 * Math.abs(this.#srtt - rtt);
      this.#srtt = 0.875 * this.#srtt + 0.125 * rtt;
    }
    this.rto = Math.ceil(Math.min(MAX_RTO_NS, Math.max(MIN_RTO_NS, this.#srtt + 4 * this.#rttvar)));
  }
  /** The handshake's time says nothing of data's. */
  restart(): void {
    this.rto = INITIAL_RTO_NS;
  }
  /** RFC 8985 "PTO", and not before an answer that takes as long as some took. Without a measurement it is no sooner than the timer. */
  get probe(): number {
    if (this.#srtt < 0) return this.rto;
    return Math.max(2 * this.#srtt, this.#srtt + 4 * this.#rttvar, MIN_PROBE_NS);
  }
}
