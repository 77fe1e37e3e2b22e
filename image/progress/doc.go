// Package progress shows a person how far work on the layers of an image has
// come: on a terminal as a block of lines that is drawn again and again, a line
// for each layer under way and one for all; elsewhere as one plain line for each
// layer that is done, for logs.
//
// It is for tools. What it shows comes from the events of packages pull and
// ship; it decides nothing, and an error of the terminal stops nothing.
package progress
