/**
 * One end of a TCP connection: RFC 9293 (TCP), RFC 7323 (window scale), RFC 2018 (selective acknowledgements), RFC 5961 (resets and SYNs
 * that somebody guessed). What is lost and how much may be sent is in `congestion`, how long to wait in `round-trip`.
 *
 * It knows nothing of addresses: it is given headers, and writes segments into frames that its wire begins and ends. Every segment
 * with data is acknowledged at once; there is no Nagle delay. Where the wire takes them, segments are many times the MSS long.
 */
import { EarlyQueue, SendQueue } from "./byte-queue.js";
import { Congestion, UNLIMITED } from "./congestion.js";
import { TCP_HEADER, TcpFlags, type TcpHeader, TcpOption } from "./header.js";
import { MAX_RTO_NS, RoundTrip } from "./round-trip.js";
import type { TcpEnd, TcpSettings, TcpState, TcpUser, TcpWire } from "./tcp.js";
import { Timer, type Timers } from "./timers.js";

const WINDOW_SCALE = 7;
const MAX_RETRANSMISSIONS = 10;
const MAX_SYNS = 6;
/** Instead of two maximum segment lifetimes: nothing lives long in a link that is memory. */
const TIME_WAIT_NS = 2e9;
/** RFC 5961 "ACK Throttling": one in this time. */
const CHALLENGE_NS = 100e6;
const DEFAULT_MSS = 536;
const MAX_SACK_BLOCKS = 3;

const sackBlocks = new Int32Array(2 * MAX_SACK_BLOCKS);

/** One end of a connection. */
export class TcpEndpoint {
  state: TcpState = "closed";
  /** The peer's, from its SYN. */
  peerMss = DEFAULT_MSS;
  /** Counters for the statistics. */
  retransmissions = 0;

  readonly #s: TcpSettings;
  readonly #wire: TcpWire;
  readonly #user: TcpUser;
  readonly #timer: Timer;
  readonly #queue: SendQueue;
  readonly #early: EarlyQueue;

  // names of RFC 9293 "Transmission Control Block" where it has them
  readonly #iss: number;
  #sndUna: number;
  #sndNxt: number;
  /** The highest `sndNxt` so far; what is below it is a retransmission. */
  #sndMax: number;
  #sndWnd = 0;
  #sndWl1 = 0;
  #sndWl2 = 0;
  #sndScale = 0;
  /** Sequence number of the first byte in the queue. */
  #queueSeq: number;
  #finQueued = false;
  #full = false;

  #rcvNxt = 0;
  /** Right edge of the window as it was told. */
  #rcvAdv = 0;
  #rcvScale = 0;
  #unread = 0;
  #sackOk = false;
  #latestEarly = 0;
  /** Sequence number of the peer's FIN, if it is known. */
  #peerFin: number | undefined;

  readonly #congestion: Congestion;
  readonly #roundTrip = new RoundTrip();
  /** The timer is for a probe, of which there is one until something new is acknowledged: RFC 8985. */
  #isProbeDue = false;
  #isProbed = false;
  #timedSeq = 0;
  #timedAt = -1;
  #tries = 0;
  #persisting = false;
  /** Probes since the window was last open. */
  #probes = 0;
  #lastChallenge = Number.NEGATIVE_INFINITY;

  #ackNow = false;
  #busy = false;
  #again = false;
  #blocked = false;

  /** @param iss the initial sequence number, by chance */
  constructor(settings: TcpSettings, wire: TcpWire, user: TcpUser, timers: Timers, iss: number) {
    this.#s = settings;
    this.#wire = wire;
    this.#user = user;
    this.#timer = new Timer(timers, () => this.#onTimer());
    this.#queue = new SendQueue(settings.budget);
    this.#early = new EarlyQueue(settings.budget);
    this.#iss = iss | 0;
    this.#sndUna = this.#sndNxt = this.#sndMax = iss | 0;
    this.#congestion = new Congestion(iss | 0);
    this.#queueSeq = (iss + 1) | 0;
  }

  /** Bytes that wait to be sent or acknowledged. */
  get queued(): number {
    return this.#queue.length;
  }
  /** Bytes that the user has not consumed. */
  get unread(): number {
    return this.#unread;
  }
  /** Nothing will be sent before `room`. */
  get isBlocked(): boolean {
    return this.#blocked;
  }
  /** Bytes on their way. */
  get inFlight(): number {
    return (this.#sndNxt - this.#sndUna) | 0;
  }

  /** Sends a SYN. */
  connect(): void {
    this.state = "syn-sent";
    this.#sendSyn();
  }

  /** Keeps a peer's SYN until `accept` or `refuse`. */
  hold(syn: TcpHeader): void {
    this.state = "held";
    this.#takeSyn(syn);
  }
  accept(): void {
    if (this.state !== "held") return;
    this.state = "syn-received";
    this.#sendSyn();
  }
  /** Answers what was held with a reset. */
  refuse(): void {
    if (this.state !== "held") return;
    this.#emit(0, TcpFlags.RST | TcpFlags.ACK, 0, 0);
    this.#release();
  }

  /**
   * Gives bytes to send.
   * @param chunk the endpoint's from now on
   * @returns false if the user is to wait for `onWritable`
   */
  send(chunk: Uint8Array): boolean {
    if (this.state === "closed" || this.#finQueued) return true;
    this.#queue.push(chunk);
    this.#output();
    this.#full = this.#queue.length >= this.#s.budget.share(this.#s.sendBytes);
    return !this.#full;
  }

  /** No more to send: a FIN follows what is queued. */
  shutdown(): void {
    if (this.#finQueued || this.state === "closed" || this.state === "time-wait") return;
    // before the handshake is done it only waits there
    this.#finQueued = true;
    if (this.state === "established") this.state = "fin-wait-1";
    else if (this.state === "close-wait") this.state = "last-ack";
    this.#output();
  }

  /** The user is done with bytes that it was given. */
  consumed(bytes: number): void {
    if (this.state === "closed") return;
    this.#unread -= bytes;
    this.#s.budget.used -= bytes;
    if (!this.#receives) return;
    const before = (this.#rcvAdv - this.#rcvNxt) | 0;
    const gain = this.#window() - before;
    const { receiveBytes, mss } = this.#s;
    // RFC 9293 "Silly Window Syndrome Avoidance": not for a few bytes, unless the peer was told that there is no room for a segment
    if (gain >= receiveBytes >> 2 || (before < mss && gain >= Math.min(mss, receiveBytes >> 1))) {
      this.#ackNow = true;
      this.#output();
    }
  }

  /** Lets go of the connection with a reset. No event comes any more. */
  abort(): void {
    if (this.state === "closed") return;
    if (this.state === "held") this.refuse();
    else {
      if (this.state !== "syn-sent" && this.state !== "time-wait")
        this.#emit(this.#sndMax, TcpFlags.RST | TcpFlags.ACK, 0, 0);
      this.#release();
    }
  }

  /** Lets go of the connection without a word. */
  forget(): void {
    this.#release();
  }

  /** The wire has room again. */
  room(): void {
    if (!this.#blocked) return;
    this.#blocked = false;
    if (this.state === "syn-sent" || this.state === "syn-received") this.#sendSyn();
    this.#output();
  }

  /** Sends a SYN again at once: the peer has just been heard of. */
  hurry(): void {
    if (this.state === "syn-sent") this.#sendSyn();
  }

  /** Whether a SYN begins a new connection in place of this one: RFC 9293 "TIME-WAIT STATE". */
  isReplacedBy(h: TcpHeader): boolean {
    return (
      this.state === "time-wait" &&
      (h.flags & (TcpFlags.SYN | TcpFlags.ACK)) === TcpFlags.SYN &&
      ((h.seq - this.#rcvNxt) | 0) > 0
    );
  }

  /** Takes a segment whose checksum holds. RFC 9293 "SEGMENT ARRIVES". */
  input(h: TcpHeader, bytes: Uint8Array): void {
    const isWithin = this.#busy; // a peer that answered before what was sent to it returned
    this.#busy = true;
    switch (this.state) {
      case "closed":
        break;
      case "held":
        if ((h.flags & TcpFlags.RST) !== 0 && h.seq === this.#rcvNxt) this.#finish("reset");
        break;
      case "syn-sent":
        this.#synSent(h);
        break;
      default:
        this.#arrives(h, bytes);
    }
    this.#busy = isWithin;
    if (this.state !== "closed") this.#output();
  }

  #takeSyn(h: TcpHeader): void {
    this.#rcvNxt = (h.seq + 1) | 0;
    this.#rcvAdv = this.#rcvNxt;
    if (h.mss > 0) this.peerMss = Math.max(64, h.mss);
    this.#sackOk = h.sackPermitted;
    const scaled = h.windowScale >= 0;
    this.#sndScale = scaled ? h.windowScale : 0;
    this.#rcvScale = scaled ? WINDOW_SCALE : 0;
    this.#sndWnd = h.window; // never scaled in a SYN
    this.#sndWl1 = h.seq;
    this.#sndWl2 = this.#sndUna;
  }

  #synSent(h: TcpHeader): void {
    const hasAck = (h.flags & TcpFlags.ACK) !== 0;
    if (hasAck && h.ack !== ((this.#iss + 1) | 0)) {
      if ((h.flags & TcpFlags.RST) === 0) this.#emit(h.ack, TcpFlags.RST, 0, 0);
      return;
    }
    if ((h.flags & TcpFlags.RST) !== 0) {
      if (hasAck) this.#finish("refused");
      return;
    }
    if ((h.flags & TcpFlags.SYN) === 0) return;
    this.#takeSyn(h);
    if (hasAck) {
      this.#established(h);
      this.#sndWnd = h.window;
      this.#ackNow = true;
    } else {
      // both ends open at once
      this.state = "syn-received";
      this.#sendSyn();
    }
  }

  #established(h: TcpHeader): void {
    this.state = this.#finQueued ? "fin-wait-1" : "established";
    this.#sndUna = h.ack;
    if (((this.#sndNxt - h.ack) | 0) < 0) this.#sndNxt = h.ack;
    this.#sndWnd = h.window << this.#sndScale;
    this.#sndWl1 = h.seq;
    this.#sndWl2 = h.ack;
    this.#timer.cancel();
    this.#tries = 0;
    this.#roundTrip.restart();
    this.#user.onConnect();
  }

  #arrives(h: TcpHeader, bytes: Uint8Array): void {
    const isSyn = (h.flags & TcpFlags.SYN) !== 0;
    const hasFin = (h.flags & TcpFlags.FIN) !== 0;
    const length = h.dataLength + (isSyn ? 1 : 0) + (hasFin ? 1 : 0);
    const window = (this.#rcvAdv - this.#rcvNxt) | 0;
    const begin = (h.seq - this.#rcvNxt) | 0;
    const end = begin + length;
    const acceptable =
      length === 0 ? (window === 0 ? begin === 0 : begin >= 0 && begin < window) : end > 0 && begin < window;
    if ((h.flags & TcpFlags.RST) !== 0) {
      if (begin === 0) this.#finish("reset");
      else if (acceptable) this.#challenge();
      return;
    }
    if (isSyn) {
      if (this.state !== "syn-received") {
        this.#challenge();
        return;
      }
      if (begin === -1 && (h.flags & TcpFlags.ACK) === 0) {
        this.#sendSyn(); // ours was lost
        return;
      }
      // of both ends that opened at once: the peer's SYN with our acknowledgement
      if (begin !== -1) return;
    }
    if (!acceptable && !isSyn) {
      // a probe of a closed window, or what came twice; its acknowledgement may be news
      this.#ackNow = true;
      if (this.state === "time-wait") this.#timer.set(this.#wire.now() + TIME_WAIT_NS);
      if (begin > 0) return;
    }
    if ((h.flags & TcpFlags.ACK) === 0) return;
    if (this.state === "syn-received") {
      const isOurs = ((h.ack - this.#sndUna) | 0) > 0 && ((h.ack - this.#sndMax) | 0) <= 0;
      if (!isOurs) {
        this.#emit(h.ack, TcpFlags.RST, 0, 0);
        return;
      }
      this.#established(h);
      this.#ackNow = isSyn;
      if (this.#isClosed) return;
    } else if (!this.#acknowledged(h, acceptable)) return;
    if (!acceptable) return;
    if (this.#receives) this.#take(h, bytes, begin, window, hasFin);
    else if (length > 0) this.#ackNow = true;
  }

  /** Closed by the user from within a call; the compiler would otherwise hold on to what it has seen of `state`. */
  get #isClosed(): boolean {
    return this.state === "closed";
  }
  /** The peer may still send. */
  get #receives(): boolean {
    return this.state === "established" || this.state === "fin-wait-1" || this.state === "fin-wait-2";
  }

  /** @returns false if the segment is not to be looked at further */
  #acknowledged(h: TcpHeader, acceptable: boolean): boolean {
    const fresh = (h.ack - this.#sndUna) | 0;
    if (((h.ack - this.#sndMax) | 0) > 0) {
      this.#ackNow = true; // acknowledges what was never sent
      return false;
    }
    this.#tries = 0;
    const window = h.window << this.#sndScale;
    const congestion = this.#congestion;
    const hasSacks = this.#sackOk && h.sackCount > 0;
    const news = hasSacks && congestion.takeSacks(h, this.#sndUna, this.#sndMax);
    if (fresh > 0) this.#advance(h.ack, fresh);
    else if (
      news ||
      (fresh === 0 &&
        !hasSacks && // of what came twice (RFC 2883), or nothing new
        acceptable &&
        h.dataLength === 0 &&
        (h.flags & TcpFlags.FIN) === 0 &&
        window === this.#sndWnd &&
        this.#sndMax !== this.#sndUna &&
        !this.#persisting)
    )
      congestion.duplicate(this.peerMss);
    if (this.#isClosed) return false;
    if (congestion.isLossSeen(this.#sndUna, this.#sndMax, this.peerMss)) {
      this.#timedAt = -1;
      this.#retransmit();
      this.#startTimer();
    }
    const bySeq = (h.seq - this.#sndWl1) | 0;
    if (bySeq > 0 || (bySeq === 0 && ((h.ack - this.#sndWl2) | 0) >= 0)) {
      if (window > this.#sndWnd && this.#persisting) this.#stopTimer();
      this.#sndWnd = window;
      this.#sndWl1 = h.seq;
      this.#sndWl2 = h.ack;
    }
    return true;
  }

  #advance(ack: number, fresh: number): void {
    const ofQueue = Math.min(this.#queue.length, (ack - this.#queueSeq) | 0);
    if (ofQueue > 0) {
      this.#queue.drop(ofQueue);
      this.#queueSeq = (this.#queueSeq + ofQueue) | 0;
    }
    this.#sndUna = ack;
    if (((ack - this.#sndNxt) | 0) > 0) this.#sndNxt = ack;
    if (this.#timedAt >= 0 && ((ack - this.#timedSeq) | 0) > 0) {
      this.#roundTrip.measured(this.#wire.now() - this.#timedAt);
      this.#timedAt = -1;
    }
    this.#isProbed = false;
    if (this.#congestion.advance(ack, fresh, this.#sackOk, this.peerMss)) this.#retransmit();
    this.#stopTimer();
    if (this.#sndMax !== this.#sndUna) this.#startTimer();
    if (this.#finQueued && this.#sndUna === ((this.#queueSeq + 1) | 0)) this.#finAcknowledged();
    if (this.#full && this.#queue.length <= this.#s.budget.share(this.#s.sendBytes) >> 1) {
      this.#full = false;
      this.#user.onWritable();
    }
  }

  #finAcknowledged(): void {
    if (this.state === "fin-wait-1") this.state = "fin-wait-2";
    else if (this.state === "closing") this.#timeWait();
    else if (this.state === "last-ack") this.#finish("done");
  }

  #timeWait(): void {
    this.state = "time-wait";
    this.#persisting = false;
    this.#timer.set(this.#wire.now() + TIME_WAIT_NS);
    this.#user.onClose("done");
  }

  #take(h: TcpHeader, bytes: Uint8Array, begin: number, window: number, hasFin: boolean): void {
    const skip = Math.max(0, -begin);
    const from = Math.max(0, begin);
    const length = Math.min(h.dataLength - skip, window - from);
    const whole = length === h.dataLength - skip;
    if (h.dataLength > 0) this.#ackNow = true;
    if (hasFin && whole) this.#peerFin = (h.seq + h.dataLength) | 0;
    if (length > 0) {
      const at = h.dataAt + skip;
      const data = bytes.subarray(at, at + length);
      if (from > 0) {
        this.#latestEarly = (h.seq + skip) | 0;
        this.#early.add(this.#latestEarly, data);
      } else {
        this.#deliver(data);
        for (let more = this.#nextEarly(); more !== undefined; more = this.#nextEarly()) this.#deliver(more);
      }
    }
    if (this.#peerFin === this.#rcvNxt && this.#receives) {
      this.#rcvNxt = (this.#rcvNxt + 1) | 0;
      if (((this.#rcvAdv - this.#rcvNxt) | 0) < 0) this.#rcvAdv = this.#rcvNxt;
      this.#ackNow = true;
      const isLast = this.state === "fin-wait-2";
      if (this.state === "established") this.state = "close-wait";
      else if (this.state === "fin-wait-1") this.state = "closing";
      this.#user.onEnd();
      if (isLast && !this.#isClosed) this.#timeWait();
    } else if (hasFin) this.#ackNow = true;
  }
  #nextEarly(): Uint8Array | undefined {
    return this.#early.count > 0 && this.#receives ? this.#early.take(this.#rcvNxt) : undefined;
  }
  #deliver(data: Uint8Array): void {
    this.#rcvNxt = (this.#rcvNxt + data.length) | 0;
    this.#unread += data.length;
    this.#s.budget.used += data.length;
    this.#user.onData(data);
  }

  /** The window to tell: it never takes back what was told. */
  #window(): number {
    const told = (this.#rcvAdv - this.#rcvNxt) | 0;
    return Math.max(told, this.#s.budget.share(this.#s.receiveBytes) - this.#unread, 0);
  }

  #challenge(): void {
    const now = this.#wire.now();
    if (now - this.#lastChallenge < CHALLENGE_NS) return;
    this.#lastChallenge = now;
    this.#ackNow = true;
  }

  #startTimer(): void {
    const { rto, probe } = this.#roundTrip;
    let ns = Math.min(MAX_RTO_NS, rto * 2 ** Math.max(this.#tries, this.#probes));
    this.#isProbeDue = this.#sackOk && this.#tries === 0 && !this.#isProbed && !this.#persisting && probe < ns;
    if (this.#isProbeDue) ns = probe;
    this.#timer.set(this.#wire.now() + ns);
  }
  #stopTimer(): void {
    this.#timer.cancel();
    this.#persisting = false;
    this.#probes = 0;
  }

  #onTimer(): void {
    if (this.state === "time-wait") {
      this.#release();
      return;
    }
    if (this.#blocked) {
      this.#startTimer(); // not the peer's fault
      return;
    }
    if (this.#isProbeDue && this.#sndWnd > 0) {
      this.#probeLoss();
      return;
    }
    this.#tries++;
    const isOpening = this.state === "syn-sent" || this.state === "syn-received";
    if (this.#tries > (isOpening ? MAX_SYNS : MAX_RETRANSMISSIONS)) {
      if (this.state !== "syn-sent") this.#emit(this.#sndMax, TcpFlags.RST | TcpFlags.ACK, 0, 0);
      this.#finish("timeout");
      return;
    }
    this.#timedAt = -1;
    if (isOpening) {
      this.retransmissions++;
      this.#sendSyn();
    } else if (this.#persisting || this.#sndWnd === 0) this.#probe();
    else {
      this.#congestion.timeout(this.#sndUna, this.#sndMax, this.peerMss);
      this.#sndNxt = this.#sndUna;
      this.retransmissions++;
      this.#output();
      this.#startTimer();
    }
  }

  /**
   * RFC 8985 "Tail Loss Probe": the last segment again, so that the peer says what it has. Where a hole is known, it is filled instead: what
   * was sent again and lost again is not seen otherwise.
   */
  #probeLoss(): void {
    this.#isProbed = true;
    this.#timedAt = -1;
    const c = this.#congestion;
    if (c.sacks.count > 0 || this.#sndNxt !== this.#sndMax) this.#retransmit();
    else {
      const flight = (this.#sndMax - this.#sndUna) | 0;
      c.tailProbe = (this.#sndMax - Math.min(flight, this.peerMss, this.#s.mss)) | 0;
      this.#sendAgain(c.tailProbe, this.#sndMax);
    }
    this.#startTimer();
  }

  /**
   * RFC 9293 "Zero-Window Probing". Without data and from before the window, so that it is answered and nothing else: a byte of data
   * would put the numbers of later acknowledgements beyond a window that is closed.
   */
  #probe(): void {
    this.#persisting = true;
    this.#probes++;
    this.#sndNxt = this.#sndUna;
    this.#emit((this.#sndUna - 1) | 0, TcpFlags.ACK, 0, 0);
    this.#startTimer();
  }

  #sendSyn(): void {
    this.#sndNxt = this.#sndMax = (this.#iss + 1) | 0;
    this.#emit(this.#iss, this.state === "syn-sent" ? TcpFlags.SYN : TcpFlags.SYN | TcpFlags.ACK, 0, 0);
    this.#startTimer();
  }

  /** The first of what is missing. */
  #retransmit(): void {
    const c = this.#congestion;
    const hole = c.sacks.missing(this.#sndUna, this.#sndMax);
    const end = this.#sendAgain(hole.from, hole.end);
    if (c.inRecovery && ((end - c.highRxt) | 0) > 0) c.highRxt = end;
  }
  /**
   * One segment of what was sent before.
   * @param end not beyond `sndMax`
   * @returns the first number that is not in it: `from` if there was no room
   */
  #sendAgain(from: number, end: number, most = UNLIMITED): number {
    const offset = (from - this.#queueSeq) | 0;
    const left = this.#queue.length - offset;
    const wanted = (end - from) | 0;
    const data = Math.min(left, this.#longest(), wanted, most);
    const fin = this.#finQueued && data === left && wanted > data;
    if (!this.#emit(from, TcpFlags.ACK | (fin ? TcpFlags.FIN : 0), offset, data)) return from;
    this.retransmissions++;
    return (from + data + (fin ? 1 : 0)) | 0;
  }

  /** Most bytes of data in a segment: whole ones of the peer's size, if it is cut later. */
  #longest(): number {
    const mss = Math.min(this.peerMss, this.#s.mss);
    return mss * Math.max(1, Math.floor(this.#s.longSegment / mss));
  }

  /** Sends what may be sent, and an acknowledgement if one is due. */
  #output(): void {
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    do {
      this.#again = false;
      while (this.#sendOne()) if (this.#isClosed) break;
    } while (this.#again && !this.#isClosed);
    this.#busy = false;
    if (this.#isClosed) return;
    if (this.#ackNow && !this.#blocked && this.state !== "held" && this.state !== "syn-sent")
      this.#emit(this.#ackSeq, TcpFlags.ACK, 0, 0);
    this.#watchWindow();
  }
  /**
   * The number of a segment without data: the highest that was sent, as the peer may have got it all although it is being sent again; but
   * not beyond its window. With another one the peer would not look at the acknowledgement.
   */
  get #ackSeq(): number {
    const edge = (this.#sndUna + this.#sndWnd) | 0;
    return ((this.#sndMax - edge) | 0) > 0 ? edge : this.#sndMax;
  }

  /** @returns whether something was sent, so that more may follow */
  #sendOne(): boolean {
    if (this.#blocked || !this.#sends) return false;
    const mss = Math.min(this.peerMss, this.#s.mss);
    const { bySack, sacks } = this.#congestion;
    // what is sent again after a timeout begins and ends where the peer has something
    let wanted = UNLIMITED;
    if (this.#sndNxt !== this.#sndMax && sacks.count > 0) {
      const { from, end } = sacks.missing(this.#sndNxt, this.#sndMax);
      this.#sndNxt = from;
      if (from !== end) wanted = (end - from) | 0;
    }
    const room = this.#congestion.room(this.#sndUna, this.#sndNxt, this.#sndMax, this.peerMss);
    if (room <= 0) return false;
    if (bySack && this.#fillHole(true, room)) return true;
    const offset = (this.#sndNxt - this.#queueSeq) | 0;
    const available = this.#queue.length - offset;
    const isEmpty = available < 0 || (available === 0 && !this.#finQueued);
    const usable = isEmpty ? 0 : Math.min(room, (this.#sndWnd - ((this.#sndNxt - this.#sndUna) | 0)) | 0);
    if (usable <= 0) return bySack && this.#fillHole(false, room);
    const length = Math.min(available, this.#longest(), usable, wanted);
    const fin = this.#finQueued && length === available;
    // no small segment into a small window while an acknowledgement is on its way that may open it
    if (length < available && length < mss && length < wanted && this.#sndNxt !== this.#sndUna) return false;
    const before = this.#sndNxt;
    const max = this.#sndMax;
    const after = (before + length + (fin ? 1 : 0)) | 0;
    this.#sndNxt = after;
    if (((after - max) | 0) > 0) this.#sndMax = after;
    const timed = this.#timedAt < 0 && before === max && !this.#congestion.inRecovery;
    if (timed) {
      this.#timedAt = this.#wire.now();
      this.#timedSeq = before;
    }
    const wasArmed = this.#timer.isArmed && !this.#persisting;
    if (!wasArmed) {
      this.#persisting = false;
      this.#startTimer();
    }
    const push = length > 0 && length === available ? TcpFlags.PSH : 0;
    const ok = this.#emit(before, TcpFlags.ACK | push | (fin ? TcpFlags.FIN : 0), offset, length);
    if (!ok) {
      this.#sndNxt = before;
      this.#sndMax = max;
      if (timed) this.#timedAt = -1;
      if (!wasArmed) this.#timer.cancel();
    }
    return ok;
  }
  /** @returns whether something was sent again */
  #fillHole(onlyLost: boolean, room: number): boolean {
    const hole = this.#blocked ? undefined : this.#congestion.nextHole(this.#sndUna, onlyLost, this.peerMss);
    if (hole === undefined) return false;
    const { from } = hole;
    const end = this.#sendAgain(from, hole.end, room);
    if (end === from) return false;
    this.#congestion.highRxt = end;
    return true;
  }
  /** In a state in which data, or a FIN, may have to be sent. */
  get #sends(): boolean {
    switch (this.state) {
      case "established":
      case "close-wait":
      case "fin-wait-1":
      case "closing":
      case "last-ack":
        return true;
      default:
        return false;
    }
  }

  /** With nothing on its way, a closed window would stay closed if the word of its opening were lost. */
  #watchWindow(): void {
    if (!this.#sends || this.#timer.isArmed || this.#sndNxt !== this.#sndUna || this.#blocked) return;
    const offset = (this.#sndNxt - this.#queueSeq) | 0;
    const waits = this.#queue.length - offset > 0 || (this.#finQueued && this.#queue.length === offset);
    if (!waits) return;
    this.#persisting = true;
    this.#startTimer();
  }

  /** Writes one segment. @returns false if there was no room */
  #emit(seq: number, flags: number, offset: number, length: number): boolean {
    const f = this.#wire.begin();
    if (f === undefined) {
      this.#blocked = true;
      return false;
    }
    const at = this.#wire.transportAt;
    const { view } = f;
    view.setUint16(at, this.#s.localPort);
    view.setUint16(at + 2, this.#s.remotePort);
    view.setInt32(at + 4, seq);
    const hasAck = (flags & TcpFlags.ACK) !== 0;
    view.setInt32(at + 8, hasAck ? this.#rcvNxt : 0);
    const isSyn = (flags & TcpFlags.SYN) !== 0;
    let window = 0;
    if ((flags & TcpFlags.RST) === 0) {
      window = this.#window();
      const scale = isSyn ? 0 : this.#rcvScale;
      window = Math.min(0xffff, window >> scale);
      if (hasAck) {
        const edge = (this.#rcvNxt + (window << scale)) | 0;
        if (((edge - this.#rcvAdv) | 0) > 0) this.#rcvAdv = edge;
        this.#ackNow = false;
      }
    }
    view.setUint16(at + 14, window);
    view.setUint32(at + 16, 0);
    let header = TCP_HEADER;
    if (isSyn) header += this.#synOptions(view, at + header);
    else if (length === 0 && this.#sackOk && this.#early.count > 0) header += this.#sackOption(view, at + header);
    view.setUint16(at + 12, ((header >> 2) << 12) | flags);
    if (length > 0) this.#queue.copy(offset, length, f.bytes, at + header);
    const mss = Math.min(this.peerMss, this.#s.mss);
    const ok = this.#wire.end(f, header, length, length > mss ? mss : 0);
    if (!ok) {
      this.#blocked = true;
      if (hasAck && !isSyn) this.#ackNow = true;
    }
    return ok;
  }
  #synOptions(view: DataView, at: number): number {
    view.setUint32(at, (TcpOption.MSS << 24) | (4 << 16) | this.#s.mss);
    const answers = this.state !== "syn-sent";
    // what the peer did not offer is not agreed on
    const scale = !answers || this.#rcvScale > 0;
    const sack = !answers || this.#sackOk;
    view.setUint16(at + 4, sack ? (TcpOption.SACK_PERMITTED << 8) | 2 : 0x0101);
    view.setUint16(at + 6, 0x0101);
    if (!scale) return 8;
    view.setUint32(at + 8, (TcpOption.NOP << 24) | (TcpOption.WINDOW_SCALE << 16) | (3 << 8) | WINDOW_SCALE);
    return 12;
  }
  #sackOption(view: DataView, at: number): number {
    const n = this.#early.blocks(this.#latestEarly, sackBlocks, MAX_SACK_BLOCKS);
    view.setUint32(at, (TcpOption.NOP << 24) | (TcpOption.NOP << 16) | (TcpOption.SACK << 8) | (2 + 8 * n));
    for (let i = 0; i < 2 * n; i++) view.setInt32(at + 4 + 4 * i, sackBlocks[i]!);
    return 4 + 8 * n;
  }

  #release(): void {
    if (this.state === "closed") return;
    this.state = "closed";
    this.#s.budget.used -= this.#unread;
    this.#unread = 0;
    this.#timer.cancel();
    this.#queue.clear();
    this.#early.clear();
    this.#congestion.sacks.clear();
    this.#blocked = false;
    this.#user.onReleased();
  }
  #finish(why: TcpEnd): void {
    if (this.state !== "time-wait") this.#user.onClose(why);
    this.#release();
  }
}
