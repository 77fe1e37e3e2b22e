// Package inflate reads gzip (RFC 1952) and DEFLATE (RFC 1951) streams. It
// exists because inflating is most of what pulling an image costs: it gives
// the bytes of compress/gzip, takes and refuses the same streams, and is
// several times as fast. docs/adr/0024 tells why it is ours.
//
// A [Reader] has a fixed size, about 220 KiB, whatever the stream says; nothing
// is allocated while reading. All its buffers are arrays that are indexed with
// bounds checked.
//
// # How it works
//
// A symbol is decoded with one look into a table of [litRoot] or [distRoot]
// bits, rarely two. The entry of the table carries everything: how many bits
// the code has, how many follow it, and what they are added to. A register of
// 64 bits holds the next 56 bits or more of the input, so that three literals,
// or a length with its distance, need one refill.
//
// There are two loops. The fast one runs while sixteen bytes of input are at
// hand and the longest match fits into the window; it moves eight bytes at a
// time and may write behind the end of a match, where the next symbol goes. The
// careful one takes one symbol, bit by bit where it must, and serves the edges
// of buffers and the end of the stream.
package inflate
