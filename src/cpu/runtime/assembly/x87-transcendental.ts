export function transcendental(which: i32): void {}
