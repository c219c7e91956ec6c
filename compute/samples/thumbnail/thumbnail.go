// Command thumbnail reads a PNG or JPEG from standard input and writes it as a PNG that fits into WIDTH by HEIGHT
// pixels to standard output. Each new pixel is the mean of the old ones that it covers.
package main

import (
	"bufio"
	"fmt"
	"image"
	"image/color"
	_ "image/jpeg"
	"image/png"
	"os"
	"strconv"
)

func main() {
	if len(os.Args) != 3 {
		fail("usage: thumbnail WIDTH HEIGHT < image > thumbnail.png")
	}
	width, err := strconv.Atoi(os.Args[1])
	if err != nil || width < 1 {
		fail("the width is not a number of pixels")
	}
	height, err := strconv.Atoi(os.Args[2])
	if err != nil || height < 1 {
		fail("the height is not a number of pixels")
	}
	source, _, err := image.Decode(bufio.NewReader(os.Stdin))
	if err != nil {
		fail(err.Error())
	}
	output := bufio.NewWriter(os.Stdout)
	if err := png.Encode(output, shrink(source, width, height)); err != nil {
		fail(err.Error())
	}
	if err := output.Flush(); err != nil {
		fail(err.Error())
	}
}

// shrink keeps the proportions, and never enlarges.
func shrink(source image.Image, width, height int) image.Image {
	bounds := source.Bounds()
	w, h := bounds.Dx(), bounds.Dy()
	if w*height > h*width {
		width, height = min(width, w), max(1, h*min(width, w)/w)
	} else {
		width, height = max(1, w*min(height, h)/h), min(height, h)
	}
	target := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := 0; y < height; y++ {
		for x := 0; x < width; x++ {
			target.Set(x, y, mean(source, image.Rect(x*w/width, y*h/height, (x+1)*w/width, (y+1)*h/height).Add(bounds.Min)))
		}
	}
	return target
}

func mean(source image.Image, area image.Rectangle) color.Color {
	var r, g, b, a, n uint64
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			pr, pg, pb, pa := source.At(x, y).RGBA()
			r, g, b, a, n = r+uint64(pr), g+uint64(pg), b+uint64(pb), a+uint64(pa), n+1
		}
	}
	return color.RGBA64{uint16(r / n), uint16(g / n), uint16(b / n), uint16(a / n)}
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
