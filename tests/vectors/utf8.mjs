// Writes utf8.json: bytes (in base64) and the text that Node's Buffer.toString() makes of them.
//
//   node tests/vectors/utf8.mjs > tests/vectors/utf8.json
//
// The random ones come from a fixed seed, so that the same Node gives the same file.
const byHand = [
  'ff', '61ff62', 'c0af', 'c3', 'c328', 'e28c', 'e28ca1', 'e2', 'e228a1', 'f0908c', 'f09f98', 'f09f9880', 'f0288cbc', 'f4908080', 'f8888080', 'eda080', 'edbfbf', 'eda0bdedb880',
  'efbbbf61', 'efbfbe', '80', '8080', 'bf', 'c080', 'c1bf', 'e08080', 'e0a080', 'f0808080', 'f0908080', 'f48fbfbf', 'fe', 'feff', '61c3', 'c3a4c3', 'e28c61', 'f09f6180', '00ff00',
  'e28c e28c', 'f09f98 f09f9880', 'ffffffff', 'c2 41 42', 'e0 80 af', 'ed a0 80 41', 'f4 90 41',
]
let seed = 20240817
const random = (n) => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
  return Math.floor((seed / 2 ** 32) * n)
}
const pieces = [0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xc3, 0xdf, 0xe0, 0xe2, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff]
const atRandom = Array.from({ length: 300 }, () => Buffer.from(Array.from({ length: 1 + random(12) }, () => pieces[random(pieces.length)])))
const all = [...byHand.map((hex) => Buffer.from(hex.replaceAll(' ', ''), 'hex')), ...atRandom]
const lines = all.map((bytes) => '    ' + JSON.stringify({ bytes: bytes.toString('base64'), text: bytes.toString() }))
process.stdout.write(`{\n  "made_by": "tests/vectors/utf8.mjs with node ${process.version}",\n  "cases": [\n${lines.join(',\n')}\n  ]\n}\n`)
