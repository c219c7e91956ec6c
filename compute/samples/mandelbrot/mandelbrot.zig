//! `mandelbrot LEFT TOP SIDE PIXELS STEPS`: one square tile of the Mandelbrot set as a grey PGM image on standard
//! output. SIDE is the length of its side in the plane; a point that has not escaped after STEPS is black.

extern "c" fn atof(text: [*:0]const u8) f64;
extern "c" fn atoi(text: [*:0]const u8) c_int;
extern "c" fn printf(format: [*:0]const u8, ...) c_int;
extern "c" fn putchar(byte: c_int) c_int;

/// What C compilers make of `main`, and what the C library looks for.
export fn __main_argc_argv(argc: c_int, argv: [*][*:0]const u8) c_int {
    if (argc != 6) return 2;
    const left = atof(argv[1]);
    const top = atof(argv[2]);
    const side = atof(argv[3]);
    const pixels = atoi(argv[4]);
    const steps = atoi(argv[5]);
    if (pixels < 1 or steps < 1) return 2;
    const pitch = side / @as(f64, @floatFromInt(pixels));
    _ = printf("P5\n%d %d\n255\n", pixels, pixels);
    var row: c_int = 0;
    while (row < pixels) : (row += 1) {
        var column: c_int = 0;
        while (column < pixels) : (column += 1) {
            const x = left + pitch * @as(f64, @floatFromInt(column));
            const y = top - pitch * @as(f64, @floatFromInt(row));
            _ = putchar(shade(x, y, steps));
        }
    }
    return 0;
}

fn shade(x: f64, y: f64, steps: c_int) c_int {
    var re: f64 = 0;
    var im: f64 = 0;
    var step: c_int = 0;
    while (step < steps) : (step += 1) {
        const re2 = re * re;
        const im2 = im * im;
        if (re2 + im2 > 4) return 255 - @mod(step, 255);
        im = 2 * re * im + y;
        re = re2 - im2 + x;
    }
    return 0;
}
