// Lays a JSON document out over lines: from standard input to standard output, with two spaces for each level.
// Numbers and strings stay as they are written. Exits with 1 where brackets do not match or nothing is there.

// The WASI shim gives `process` its streams.

const INPUT = new ArrayBuffer(64 * 1024);
const OUTPUT = new Array<u8>();

const QUOTE: u8 = 0x22;
const BACKSLASH: u8 = 0x5c;
const COMMA: u8 = 0x2c;
const COLON: u8 = 0x3a;

const nested = new Array<u8>();
let inString = false;
let escaped = false;
// Whether a bracket was opened and nothing has come since.
let opened = false;
let tokens = 0;

function put(byte: u8): void {
  OUTPUT.push(byte);
  if (OUTPUT.length >= 64 * 1024) flush();
}

function flush(): void {
  if (OUTPUT.length == 0) return;
  const bytes = new ArrayBuffer(OUTPUT.length);
  memory.copy(changetype<usize>(bytes), OUTPUT.dataStart, OUTPUT.length);
  process.stdout.write(bytes);
  OUTPUT.length = 0;
}

function line(): void {
  put(0x0a);
  for (let i = 0; i < nested.length; i++) {
    put(0x20);
    put(0x20);
  }
}

function refuse(): void {
  flush();
  process.stderr.write("this is not JSON\n");
  process.exit(1);
}

function value(): void {
  if (opened) {
    opened = false;
    line();
  }
}

function take(byte: u8): void {
  if (inString) {
    put(byte);
    if (escaped) escaped = false;
    else if (byte == BACKSLASH) escaped = true;
    else if (byte == QUOTE) inString = false;
    return;
  }
  // Spaces, tabs and ends of lines between tokens.
  if (byte == 0x20 || byte == 0x09 || byte == 0x0a || byte == 0x0d) return;
  tokens++;
  if (byte == 0x7b || byte == 0x5b) {
    value();
    put(byte);
    // Both closing brackets are two after their opening ones.
    nested.push(byte + 2);
    opened = true;
  } else if (byte == 0x7d || byte == 0x5d) {
    if (nested.length == 0 || nested.pop() != byte) refuse();
    if (!opened) line();
    opened = false;
    put(byte);
  } else if (byte == COMMA) {
    if (nested.length == 0 || opened) refuse();
    put(byte);
    line();
  } else if (byte == COLON) {
    if (nested.length == 0) refuse();
    put(byte);
    put(0x20);
  } else {
    value();
    put(byte);
    inString = byte == QUOTE;
  }
}

while (true) {
  const length = process.stdin.read(INPUT);
  if (length <= 0) break;
  for (let i = 0; i < length; i++) take(load<u8>(changetype<usize>(INPUT) + i));
}
if (inString || nested.length > 0 || tokens == 0) refuse();
put(0x0a);
flush();
