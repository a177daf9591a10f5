/**
 * Sequences of hot forms that become one arm of the dispatch loop: the arm runs the definitions one after the other, each on
 * its own record, and saves the dispatches between. Chosen from counted runs (a kernel boot, the seven kernels, guestbench). A
 * form that stores may throw the block away: behind it the arm goes on only when the store hit the TLB, which no code page does.
 */

/** Forms by short names: width, then operand kinds. */
const short: Readonly<Record<string, string>> = {
  mov: "mov/64/r64,r64",
  mov32: "mov/32/r32,r32",
  movi: "mov/64/r64,i64",
  movi32: "mov/32/r32,i32",
  load: "mov/64/r64,m64",
  loadx: "mov/64/r64,x64",
  load32: "mov/32/r32,m32",
  load32x: "mov/32/r32,x32",
  store: "mov/64/m64,r64",
  storex: "mov/64/x64,r64",
  store32: "mov/32/m32,r32",
  add: "add/64/r64,r64",
  addn: "add/64/r64,r64/nf",
  addi: "add/64/r64,i64",
  addin: "add/64/r64,i64/nf",
  addm: "add/64/r64,m64",
  addx: "add/64/r64,x64",
  add32: "add/32/r32,r32",
  add32n: "add/32/r32,r32/nf",
  addi32: "add/32/r32,i32",
  addi32n: "add/32/r32,i32/nf",
  sub: "sub/64/r64,r64",
  subn: "sub/64/r64,r64/nf",
  imuln: "imul2/64/r64,r64/nf",
  cmp: "cmp/64/r64,r64",
  shr: "shr/64/r64,i64",
  shl: "shl/64/r64,i64",
  shr32: "shr/32/r32,i32",
  shr32n: "shr/32/r32,i32/nf",
  sar: "sar/64/r64,i64",
  rol32: "rol/32/r32,i32",
  ror32: "ror/32/r32,i32",
  lea: "lea/64/r64,m64",
  leax: "lea/64/r64,x64",
  movsxd: "movsx/64/r64,r32",
  zx8: "movzx/32/r32,r8",
  zx8m: "movzx/32/r32,m8",
  zx8x: "movzx/32/r32,x8",
  adc: "adc/64/r64,r64",
  adci: "adc/64/r64,i64",
  setb: "setb/8/r8",
  cmovae: "cmovae/64/r64,r64",
  pop: "pop/64/r64",
  ret: "ret/64/",
  jmp: "jmp/64/",
  call: "call/64/",
  xor32: "xor/32/r32,r32",
  xor32n: "xor/32/r32,r32/nf",
  xorn: "xor/64/r64,r64/nf",
  and32: "and/32/r32,i32",
  and32n: "and/32/r32,i32/nf",
  and32r: "and/32/r32,r32/nf",
  jnz: "jnz/8/",
  jnz32: "jnz/32/",
  jz: "jz/8/",
  jz32: "jz/32/",
  jae: "jae/8/",
  push: "push/64/r64",
  je8: "test.j4/8/r8,r8",
  js8: "test.j9/8/r8,r8",
  jne32: "cmp.j5/32/r32,r32",
  jneq: "cmp.j5/64/r64,r64",
  cmp8mi: "cmp/8/m8,i8",
  test8mi: "test/8/m8,i8",
  add8: "add/8/r8,r8",
  not32: "not/32/r32",
  store8xi: "mov/8/x8,i8",
  jbe32i: "cmp.j6/32/r32,i32",
  ja32i: "cmp.j7/32/r32,i32",
  je64i: "cmp.j4/64/r64,i64",
  jne64i: "cmp.j5/64/r64,i64",
  jne32i: "cmp.j5/32/r32,i32",
  je8i: "cmp.j4/8/r8,i8",
  jne8i: "cmp.j5/8/r8,i8",
  jbe8i: "cmp.j6/8/r8,i8",
  ja8i: "cmp.j7/8/r8,i8",
  jne8: "test.j5/8/r8,r8",
  jnt8i: "test.j5/8/r8,i8",
  lea32: "lea/32/r32,m32",
  cmp8xi: "cmp/8/x8,i8",
  movsxdx: "movsx/64/r64,x32",
  jmpr: "jmpIndirect/64/r64",
  xorf: "xor/64/r64,r64",
  shrn: "shr/64/r64,i64/nf",
  roln: "rol/64/r64,i64/nf",
  add32xi: "add/32/x32,i32",
  add32xin: "add/32/x32,i32/nf",
  vload32: "movdTo/32/r128,m32",
  vloada: "vmova/64/r128,m128",
  vmov: "vmova/64/r128,r128",
  vstorea: "vmova/64/m128,r128",
  pshufd: "pshufd/64/r128,r128,i64",
  psrlq: "psrlq/64/r128,i64",
  pmuludq: "pmuludq/64/r128,r128",
  pmuludqm: "pmuludq/64/r128,m128",
  unpack4: "unpackLow4/64/r128,r128",
  paddd: "paddd/64/r128,r128",
};

const lines = `
mov mov32 shr
imuln imuln
imuln mov
mov imuln
addn cmp
addn addn
shl addn
mov addn
cmp mov cmovae
cmp mov
addn mov
shr addn
mov cmovae
sub loadx
shr mov
addn shl
addn addi32
cmovae addn
cmp setb add
cmp setb
leax mov
add shr
loadx leax
setb add
movsxd sub
adc store
pop pop
pop ret
load zx8
load load
load mov
mov load
shr load
addi32 jnz32
addi32 jnz
addi jnz
sub adc
zx8 sub
jnz32 movsxd
jnz movsxd
mov mov
mov push
mov call
mov shr
mov store
shr zx8
movsxd addn
movsxd add
addi32n movsxd
addi32n addi32n
add jne32
zx8m js8
js8 addi32n
jne32 zx8m
addm adc
zx8 addm
jmp ret
cmp8mi jnz
test8mi jnz
test8mi jz
cmp8mi jz
addi je8
zx8m addi
subn xor32
mov32 mov
mov32 shr
addx setb
adci addi32
zx8m jmp
add8 jz
xor32 ret
rol32 xor32n
ror32 xor32n
mov32 ror32
mov32 rol32
mov32 xor32n
mov32 shr32n
mov32 and32r
xor32n xor32n
xor32n and32r
xor32n add32n
and32r xor32n
add32n add32n
xor32n mov32
add32n mov32
load32 mov32
load32 add32n
shr32n xor32n
zx8x xor32
zx8x xor32n
xor32n zx8
mov32 movi32
load store
load32 store32
lea mov
mov32 add32n store8xi jbe32i
addin addi32n je64i
cmp8xi jz
cmp8xi jnz
zx8m addin movi32 je8
zx8m addin movi32
zx8m addin je8
zx8m addin jne8
zx8m addin
add32xin je8
je8i lea32 jbe8i
je8i lea32 ja8i
je8i lea32
lea32 jbe8i
lea32 ja8i
lea32 ja32i
mov32 lea32
movsxdx add jmpr
movsxdx addn jmpr
vload32 vloada
addin addin
pshufd psrlq
vmov psrlq
pmuludqm pshufd
pmuludq pshufd
unpack4 paddd jneq
mov shrn xorn
imuln addn
mov roln xorn
addi32n jne32i
push push push
push push
push mov
store store
store load
store mov
store call
store32 mov32
storex addi
`;

/** Full form names of each sequence, longest first. */
export const SEQUENCES: readonly (readonly string[])[] = lines
  .trim()
  .split("\n")
  .map((line) =>
    line.split(" ").map((name) => {
      const full = short[name];
      if (full === undefined) throw new Error(`no form is called ${name}`);
      return full;
    }),
  )
  .sort((a, b) => b.length - a.length);
