// A title and an article in pieces. Places are counted in code points, as the server does.

export function cut(text, claims) {
  const chars = Array.from(text);
  const pieces = [];
  let end = 0;
  const add = (start, stop, claim) => {
    if (stop > start) pieces.push({ text: chars.slice(start, stop).join(""), claim });
  };
  for (const claim of claims) {
    // Of a quotation with a name in it the name is marked: what is in one mark is not in another.
    if (claim.start < end || claim.end > chars.length) continue;
    const inner = claims.filter((other) => other !== claim && other.start >= claim.start && other.end <= claim.end);
    if (claim.supported && inner.length) continue;
    add(end, claim.start, null);
    add(claim.start, claim.end, claim);
    end = claim.end;
  }
  add(end, chars.length, null);
  return pieces;
}

export function sentences(article, shown) {
  const chars = Array.from(article.text);
  const take = (start, end) => chars.slice(start, end).join("");
  const pieces = [];
  let end = 0;
  for (const [start, stop] of article.sentences) {
    pieces.push({ before: take(end, start) });
    const isShown = shown?.sentence && shown.sentence.start === start;
    const place = isShown ? shown.place : null;
    pieces.push({
      shown: Boolean(isShown),
      head: take(start, place ? Math.min(place[0], stop) : stop),
      words: place ? take(place[0], Math.min(place[1], stop)) : "",
      tail: place ? take(Math.min(place[1], stop), stop) : "",
    });
    end = stop;
  }
  pieces.push({ before: take(end, chars.length) });
  return pieces;
}
