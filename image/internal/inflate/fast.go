package inflate

const (
	litMask  = 1<<litRoot - 1
	distMask = 1<<distRoot - 1

	// The most bits that a distance takes: code and extra bits.
	distBits = maxCode + 13
)

// fast decodes symbols while there is plenty of input and room. What it does
// not know, such as the end of the block, it leaves to the careful loop.
//
// Of the 56 bits of a refill two literals take at most 22, and a length at most
// 20 or a third literal 15.
//
// The function is long because every call in the loop would move its registers
// to memory and back; that includes the copy of a short match.
func (d *decoder) fast() error {
	if d.end < fastInput {
		return nil
	}
	in, win, lit, dist := &d.in, &d.win, d.lit, d.dist
	bits, nb, ip, op := d.bits, d.nb, uint(d.ip), uint(d.op)
	last, bad := uint(d.end-fastInput), false
	for ip <= last && ip <= inputSize-fastInput && op <= windowSize-fastRoom {
		bits |= load64(in[ip:]) << (nb & 63)
		ip += (63 - nb) >> 3
		nb |= 56

		e := lit[bits&litMask]
		if e&literal != 0 {
			bits, nb = bits>>(e&63), nb-e.width()
			win[op] = byte(e >> 16)
			op++
			if e = lit[bits&litMask]; e&literal != 0 {
				bits, nb = bits>>(e&63), nb-e.width()
				win[op] = byte(e >> 16)
				op++
				e = lit[bits&litMask]
			}
		}
		if e&special != 0 {
			if e&link != 0 {
				e = lit[e.second(bits, litRoot)&(len(lit)-1)]
			}
			if e&special != 0 {
				break
			}
		}
		before := bits
		bits, nb = bits>>(e&63), nb-e.width()
		if e&literal != 0 {
			win[op] = byte(e >> 16)
			op++
			continue
		}
		length := uint(e.value(before))

		if nb < distBits {
			bits |= load64(in[ip:]) << (nb & 63)
			ip += (63 - nb) >> 3
			nb |= 56
		}
		e = dist[bits&distMask]
		if e&link != 0 {
			e = dist[e.second(bits, distRoot)&(len(dist)-1)]
		}
		before = bits
		bits, nb = bits>>(e&63), nb-e.width()
		distance := uint(e.value(before))
		if distance > op || e&special != 0 {
			bad = true
			break
		}
		if distance < 8 {
			repeat(win, op, distance, length)
			op += length
			continue
		}
		from, end := op-distance, op+length
		for op < end {
			a, b := win[from:from+16], win[op:op+16]
			store64(b, load64(a))
			store64(b[8:], load64(a[8:]))
			from += 16
			op += 16
		}
		op = end
	}
	d.bits, d.nb, d.ip, d.op = bits&(1<<(nb&63)-1), nb, int(ip), int(op)
	if bad {
		return d.corrupt()
	}
	return nil
}

// repeat writes length bytes at op that repeat those distance before, distance
// < 8, and up to seven bytes more. Eight bytes or a little less hold a whole
// number of repetitions.
func repeat(win *[windowSize]byte, op, distance, length uint) {
	p := &patterns[distance&7]
	v := load64(win[op-distance:]) & p.mask * p.factor
	for end := op + length; op < end; op += p.step {
		store64(win[op:], v)
	}
}

// patterns says, per distance, how its bytes fill eight: those under mask,
// multiplied by factor; and how many of the eight repeat them without a break.
var patterns = [8]struct {
	mask, factor uint64
	step         uint
}{
	1: {1<<8 - 1, 0x0101010101010101, 8},
	2: {1<<16 - 1, 0x0001000100010001, 8},
	3: {1<<24 - 1, 1 | 1<<24 | 1<<48, 6},
	4: {1<<32 - 1, 1 | 1<<32, 8},
	5: {1<<40 - 1, 1 | 1<<40, 5},
	6: {1<<48 - 1, 1 | 1<<48, 6},
	7: {1<<56 - 1, 1 | 1<<56, 7},
}
