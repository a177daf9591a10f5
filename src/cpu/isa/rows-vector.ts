/** Rows of the SSE instructions. */
export {};
