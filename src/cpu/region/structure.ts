/**
 * From a control-flow graph to WebAssembly's nested blocks and loops: the dominator tree is written from its root down, a block
 * that several others lead to gets a label around what comes before it, a loop's head a `loop`. (The method is Norman Ramsey's,
 * "Beyond Relooper", ICFP 2022.)
 *
 * Entries, and targets of jumps backwards that do not dominate where they come from, are reached through one `br_table`.
 */
import type { FunctionBuilder } from "../wasm/assembler.js";

export interface Graph {
  /** Successors by node; nodes are 0 to n - 1. */
  readonly successors: readonly (readonly number[])[];
  /** Nodes that can be entered from outside. */
  readonly entries: readonly number[];
}

export interface Emitter {
  /** Writes the node's code. It ends by calls of `leadTo`, or by leaving. */
  emit(node: number, leadTo: (successor: number) => void): void;
  /** Code before a jump back to a loop's head: it may leave. `target` is the head. */
  backEdge(target: number): void;
}

/** Structure of a graph: order, dominators, what needs a label. */
class Shape {
  readonly graph: Graph;
  /** Entries, and what has to be reached like them. The root, number n, leads to all of them. */
  readonly entries: number[];
  readonly root: number;
  order: number[] = [];
  /** Place of a node in the order, -1 = cannot be reached. */
  place: number[] = [];
  dominator: number[] = [];
  predecessors: number[][] = [];

  constructor(graph: Graph) {
    this.graph = graph;
    this.root = graph.successors.length;
    this.entries = [...graph.entries];
    for (;;) {
      this.#analyse();
      const more = this.#irreducible();
      if (more.length === 0) return;
      this.entries.push(...more);
    }
  }
  successors(node: number): readonly number[] {
    return node === this.root ? this.entries : this.graph.successors[node]!;
  }
  #analyse(): void {
    const n = this.root + 1;
    const seen = new Uint8Array(n);
    const post: number[] = [];
    // depth first, without recursion: nodes with the number of their successors already visited
    const stack: [node: number, next: number][] = [[this.root, 0]];
    seen[this.root] = 1;
    while (stack.length > 0) {
      const top = stack.at(-1)!;
      const list = this.successors(top[0]);
      // the first successor (a fall-through) comes last, so that it is next in the reverse order
      const to = list[list.length - 1 - top[1]];
      if (to === undefined) {
        post.push(top[0]);
        stack.pop();
        continue;
      }
      top[1]++;
      if (seen[to] === 0) {
        seen[to] = 1;
        stack.push([to, 0]);
      }
    }
    this.order = post.reverse();
    this.place = new Array<number>(n).fill(-1);
    this.order.forEach((node, i) => {
      this.place[node] = i;
    });
    this.predecessors = Array.from({ length: n }, () => []);
    for (const node of this.order) for (const to of this.successors(node)) this.predecessors[to]!.push(node);
    // Cooper, Harvey, Kennedy: "A Simple, Fast Dominance Algorithm"
    const dominator = new Array<number>(n).fill(-1);
    dominator[this.root] = this.root;
    const meet = (a: number, b: number): number => {
      let x = a;
      let y = b;
      while (x !== y) {
        while (this.place[x]! > this.place[y]!) x = dominator[x]!;
        while (this.place[y]! > this.place[x]!) y = dominator[y]!;
      }
      return x;
    };
    for (let changed = true; changed; ) {
      changed = false;
      for (const node of this.order) {
        if (node === this.root) continue;
        let d = -1;
        for (const p of this.predecessors[node]!) if (dominator[p] !== -1) d = d === -1 ? p : meet(d, p);
        if (d !== dominator[node]) {
          dominator[node] = d;
          changed = true;
        }
      }
    }
    this.dominator = dominator;
  }
  dominates(a: number, b: number): boolean {
    let x = b;
    while (this.place[x]! > this.place[a]!) x = this.dominator[x]!;
    return x === a;
  }
  isBack(from: number, to: number): boolean {
    return this.place[to]! <= this.place[from]!;
  }
  #irreducible(): number[] {
    const found = new Set<number>();
    for (const node of this.order)
      for (const to of this.successors(node))
        if (this.isBack(node, to) && !this.dominates(to, node) && !this.entries.includes(to)) found.add(to);
    return [...found];
  }
  /** Reached by several edges that go forward. */
  isMerge(node: number): boolean {
    return this.predecessors[node]!.filter((p) => !this.isBack(p, node)).length > 1;
  }
  isLoopHead(node: number): boolean {
    return this.predecessors[node]!.some((p) => this.isBack(p, node) && this.dominates(node, p));
  }
}

/**
 * Writes the graph's code.
 * @param entry local with the number of the entry (place in graph.entries) to begin at
 */
export function emitStructured(f: FunctionBuilder, graph: Graph, entry: number, emitter: Emitter): void {
  const shape = new Shape(graph);
  const { root, entries } = shape;
  const children: number[][] = Array.from({ length: root + 1 }, () => []);
  for (const node of shape.order) if (node !== root) children[shape.dominator[node]!]!.push(node);
  /** Labels of blocks that end where a node's code begins, and of loops. */
  const before = new Map<number, number>();
  const heads = new Map<number, number>();
  let dispatch = -1;

  const leadTo = (from: number, to: number): void => {
    if (from !== root && shape.isBack(from, to)) {
      emitter.backEdge(to);
      if (shape.dominates(to, from)) f.br(heads.get(to)!);
      else {
        f.i32(entries.indexOf(to));
        f.set(entry);
        f.br(dispatch);
      }
    } else if (before.has(to)) f.br(before.get(to)!);
    else tree(to);
  };
  const tree = (node: number): void => {
    const loops = shape.isLoopHead(node);
    if (loops) heads.set(node, f.loop());
    // the merges below, the last in the order outermost
    const merges = children[node]!.filter((c) => shape.isMerge(c)).sort((a, b) => shape.place[b]! - shape.place[a]!);
    for (const m of merges) before.set(m, f.block());
    emitter.emit(node, (to) => leadTo(node, to));
    for (const m of merges.reverse()) {
      f.end();
      before.delete(m);
      tree(m);
    }
    if (loops) {
      f.end();
      heads.delete(node);
    }
  };

  if (entries.length === 1) {
    tree(entries[0]!);
    f.op("unreachable");
    return;
  }
  dispatch = f.loop();
  // every child of the root is labelled: the table leads to the entries, forward jumps to what they share
  const all = children[root]!.sort((a, b) => shape.place[b]! - shape.place[a]!);
  for (const node of all) before.set(node, f.block());
  f.get(entry);
  const labels = entries.map((e) => before.get(e)!);
  f.brTable(labels.slice(0, -1), labels.at(-1)!);
  for (const node of all.reverse()) {
    f.end();
    before.delete(node);
    tree(node);
  }
  f.end();
  f.op("unreachable");
}
