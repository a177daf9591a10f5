/** What the runtime is given: the addresses of its areas and the host's calls. */
@external("env", "VP") export declare const VP: i32;
@external("env", "RAM") export declare const RAM: i32;
@external("env", "RAM_BYTES") export declare const RAM_BYTES: u32;
@external("env", "LINE_MASKS") export declare const LINE_MASKS: i32;
@external("env", "PAGE_BLOCKS") export declare const PAGE_BLOCKS: i32;

/** Builds the block at a RAM offset. @returns its header, 0 = fault recorded */
@external("host", "decode") export declare function hostDecode(physical: u32, mode: i32): i32;
/** Reads `size` bytes of MMIO into the memory at `to`. */
@external("host", "mmioRead") export declare function hostMmioRead(physical: f64, size: i32, to: i32): void;
@external("host", "mmioWrite") export declare function hostMmioWrite(physical: f64, size: i32, from: i32): void;
@external("host", "portIn") export declare function hostPortIn(port: i32, size: i32): i32;
@external("host", "portOut") export declare function hostPortOut(port: i32, size: i32, value: i32): void;
/** CPUID: EAX and ECX in, the four registers out, all in the block. */
@external("host", "cpuid") export declare function hostCpuid(): void;
/** MSR by ECX; EDX:EAX in the block. @returns 0 = #GP */
@external("host", "rdmsr") export declare function hostRdmsr(): i32;
@external("host", "wrmsr") export declare function hostWrmsr(): i32;
/** The time-stamp counter, to Vp.tscNow. */
@external("host", "tsc") export declare function hostTsc(): void;
@external("host", "random") export declare function hostRandom(): i32;
/** CR8 (the task priority). */
@external("host", "readCr8") export declare function hostReadCr8(): i32;
@external("host", "writeCr8") export declare function hostWriteCr8(value: i32): void;
@external("host", "vmcall") export declare function hostVmcall(): i32;
