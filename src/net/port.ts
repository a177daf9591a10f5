/**
 * The network between virtual machines and what is outside: Ethernet frames, a switch, and a router that ends the guest's
 * connections in this process (`nat`). This file is the plug: what an adapter, a switch and the router hold an end of.
 *
 * Frames stay in one process, so that what network cards compute need not be computed: a TCP segment may be longer than the
 * MTU (`segmentSize` says what to cut it to if it has to leave), and its checksum may be missing. Tags of virtual LANs
 * (IEEE 802.1Q) are in the frame's bytes.
 */

/** What is said of a frame beside its bytes. */
export const FrameFlags = {
  /** The TCP or UDP checksum field holds the sum of the pseudo-header alone (for a long segment: without the length). */
  partialChecksum: 1,
  /** All checksums of the frame were verified, or it never left this process's memory: nobody needs to look. */
  verified: 2,
} as const;

/**
 * Takes one frame from its destination address on, without the frame check sequence.
 *
 * @param frame valid until the call returns: who keeps it copies it
 * @param flags `FrameFlags`
 * @param segmentSize bytes of TCP payload to cut a long segment to; 0: the frame is to be taken as it is
 * @returns false if there was no room: the frame is lost, and `onRoom` of the sender's port tells when there is room again
 */
export type FrameTaker = (frame: Uint8Array, flags: number, segmentSize: number) => boolean;

/** One end of a cable. */
export class EthernetPort {
  #peer: EthernetPort | undefined;
  #up = true;
  /** Called for every frame from the other end. */
  receive: FrameTaker = () => true;
  /** The other end has room again, after it had none. */
  onRoom: () => void = () => {};
  /** The other end was plugged in, taken out, or changed what it says. */
  onLink: () => void = () => {};

  /** Sends to the other end. A frame into a cable that is out is lost, as on real ones: the answer is true. */
  transmit(frame: Uint8Array, flags = 0, segmentSize = 0): boolean {
    const peer = this.#peer;
    if (peer === undefined || !peer.#up || !this.#up) return true;
    return peer.receive(frame, flags, segmentSize);
  }
  /** Tells the other end that there is room. */
  room(): void {
    this.#peer?.onRoom();
  }
  /** Whether both ends are up. */
  get link(): boolean {
    if (this.#peer === undefined) return false;
    return this.#up && this.#peer.#up;
  }
  /** Takes this end out of its socket, or puts it in. */
  set up(up: boolean) {
    if (up === this.#up) return;
    this.#up = up;
    this.#peer?.onLink();
    this.onLink();
  }
  /** A cable with two ends. */
  static cable(): [EthernetPort, EthernetPort] {
    const a = new EthernetPort();
    const b = new EthernetPort();
    a.#peer = b;
    b.#peer = a;
    return [a, b];
  }
}
