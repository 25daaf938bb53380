// Writes json.json: texts and the body that the original makes of them.
//
//   node tests/vectors/json.mjs > tests/vectors/json.json
const texts = [
  '', ' ', 'hello', '"', '\\', '/', '</script>', "'", '\\"', '{"a":[1,2.50,null]}', '\ud83d\ude00', 'ä€ж', '\u007f', '\u0080', '\u009f', '\u00a0', '\u00ad',
  '\u2028', '\u2029', '\u200b', '\u202e', '\ufeff', '\ufffd', '\ufffe', '\uffff', '\ud7ff', '\ue000', '\u{10000}', '\u{10ffff}', '\u{1f468}\u200d\u{1f469}', 'e\u0301',
  'line\nline\r\nline\ttab', 'a\u0000b', '\u0000', '<>&=+%', '\\u0041', '\\n',
  ...Array.from({ length: 32 }, (_, code) => `<${String.fromCharCode(code)}>`),
]
const cases = texts.map((data) => ({ data, body: JSON.stringify({ client_id: 'dev1', data }) }))
const lines = cases.map((c) => '    ' + JSON.stringify(c))
process.stdout.write(`{\n  "made_by": "tests/vectors/json.mjs with node ${process.version}",\n  "cases": [\n${lines.join(',\n')}\n  ]\n}\n`)
