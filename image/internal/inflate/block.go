package inflate

// order is that of the code lengths' own code lengths (RFC 1951 3.2.7).
var order = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// block reads the header of a block.
func (d *decoder) block() error {
	header, err := d.take(3)
	if err != nil {
		return err
	}
	d.final = header&1 != 0
	switch header >> 1 {
	case 0:
		return d.openStored()
	case 1:
		d.lit, d.dist = fixedLit, fixedDist
	case 2:
		if err := d.dynamic(); err != nil {
			return err
		}
		d.lit, d.dist = &d.ownLit, &d.ownDist
	default:
		return d.corrupt()
	}
	d.state = inHuffman
	return nil
}

func (d *decoder) openStored() error {
	drop := d.nb & 7
	d.bits >>= drop
	d.nb -= drop
	v, err := d.take(32)
	if err != nil {
		return err
	}
	d.stored = v & 0xffff
	if d.stored != v>>16^0xffff {
		return d.corrupt()
	}
	d.state = inStored
	return nil
}

func (d *decoder) copyStored() error {
	for d.stored > 0 && d.op < windowSize {
		if d.nb > 0 { // whole bytes, as the header ended on one
			d.win[d.op] = byte(d.bits)
			d.bits >>= 8
			d.nb -= 8
			d.op++
			d.stored--
			continue
		}
		if d.ip == d.end {
			if err := d.fetch(); err != nil {
				return err
			}
		}
		n := copy(d.win[d.op:], d.in[d.ip:min(d.end, d.ip+d.stored)])
		d.ip += n
		d.op += n
		d.stored -= n
	}
	if d.stored == 0 {
		d.endBlock()
	}
	return nil
}

// dynamic reads the codes of a block into the decoder's own tables.
func (d *decoder) dynamic() error {
	v, err := d.take(14)
	if err != nil {
		return err
	}
	lits, dists, lens := v&31+257, v>>5&31+1, v>>10+4
	if lits > maxLit || dists > maxDist {
		return d.corrupt()
	}
	var widths [19]uint8
	for _, symbol := range order[:lens] {
		w, err := d.take(3)
		if err != nil {
			return err
		}
		widths[symbol] = uint8(w)
	}
	if !fill(d.lens[:], lenRoot, widths[:], lenMeaning[:]) {
		return d.corrupt()
	}
	if err := d.codeWidths(d.widths[:lits+dists]); err != nil {
		return err
	}
	if !fill(d.ownLit[:], litRoot, d.widths[:lits], litMeaning[:]) ||
		!fill(d.ownDist[:], distRoot, d.widths[lits:lits+dists], distMeaning[:]) {
		return d.corrupt()
	}
	return nil
}

// codeWidths reads the widths of both codes, which are one run-length encoded
// list.
func (d *decoder) codeWidths(widths []uint8) error {
	for i := 0; i < len(widths); {
		e, err := d.lookup(d.lens[:], lenRoot)
		if err != nil {
			return err
		}
		if e&special != 0 {
			return d.corrupt()
		}
		symbol := e.base()
		if symbol < 16 {
			widths[i] = uint8(symbol)
			i++
			continue
		}
		if symbol == 16 && i == 0 {
			return d.corrupt()
		}
		run := [3]struct {
			least int
			bits  uint
		}{{3, 2}, {3, 3}, {11, 7}}[symbol-16]
		n, err := d.take(run.bits)
		if err != nil {
			return err
		}
		n += run.least
		if n > len(widths)-i {
			return d.corrupt()
		}
		width := uint8(0)
		if symbol == 16 {
			width = widths[i-1]
		}
		for range n {
			widths[i] = width
			i++
		}
	}
	return nil
}
