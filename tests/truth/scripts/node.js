// Interpreted and compiled code, regular expressions, and bindings that allocate outside of the heap.
"use strict";
const crypto = require("crypto");
const zlib = require("zlib");

function digest(text) {
  return crypto.createHash("sha256").update(text).digest("hex");
}

let chained = "";
for (let turn = 0; turn < 2000; turn++) {
  chained = digest(chained + turn);
}
const words = Array.from({ length: 300 }, (_, number) => `word${number % 97}`);
const counts = new Map();
for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
const packed = zlib.deflateSync(Buffer.from(JSON.stringify([...counts])));
console.log(chained, zlib.inflateSync(packed).toString().replace(/(\w)(\d+)/g, "$2$1").length);
