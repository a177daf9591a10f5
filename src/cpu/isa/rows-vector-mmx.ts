/** Rows of the MMX moves and conversions; arithmetic is beside its SSE form. */
import * as V from "./vector.js";
import { VectorProcedure } from "./vector-codes.js";
import * as M from "./vector-mmx.js";
import { mmx, vectorProcedure } from "./vector-row.js";

mmx("movd", "np 0f 6e", "Pq,Ey", M.fromGeneral, "movdTo.mm");
mmx("movd", "np 0f 7e", "Ey,Pq", M.toGeneral, "movdFrom.mm");
mmx("movq", "np 0f 6f", "Pq,Qq", M.load);
mmx("movq", "np 0f 7f", "Qq,Pq", M.store);
mmx("movntq", "np 0f e7 mem", "Mq,Pq", M.store, "movq.mm");
mmx("movq2dq", "f3 0f d6 mod3", "Vx,Qq", M.toXmm, undefined, { sse: true });
mmx("movdq2q", "f2 0f d6 mod3", "Pq,Wq", M.load, "movdq2q", { sse: true });
mmx("pmovmskb", "np 0f d7 mod3", "Gd,Qq", M.moveMask);
mmx("pinsrw", "np 0f c4 mod3", "Pq,Ed,Ib", M.insertWord);
mmx("pinsrw", "np 0f c4 mem", "Pq,Mw,Ib", M.insertWord);
mmx("pextrw", "np 0f c5 mod3", "Gd,Qq,Ib", M.extractWord);
mmx("pshufw", "np 0f 70", "Pq,Qq,Ib", V.pshufw);
mmx("emms", "np 0f 77", "", M.emms, "emms");
vectorProcedure("maskmovq", "np 0f f7 mod3", "Pq,Qq", VectorProcedure.maskmovq, { fpu: true, string: true });
mmx("cvtpi2ps", "np 0f 2a", "Vx,Qq", M.toSingles, undefined, { sse: true });
mmx("cvtpi2pd", "66 0f 2a", "Vx,Qq", M.toDoubles, undefined, { sse: true });
mmx("cvttps2pi", "np 0f 2c", "Pq,Wq", M.fromFloats("ps", true), undefined, { sse: true });
mmx("cvtps2pi", "np 0f 2d", "Pq,Wq", M.fromFloats("ps", false), undefined, { sse: true });
mmx("cvttpd2pi", "66 0f 2c", "Pq,Wx", M.fromFloats("pd", true), undefined, { sse: true });
mmx("cvtpd2pi", "66 0f 2d", "Pq,Wx", M.fromFloats("pd", false), undefined, { sse: true });
