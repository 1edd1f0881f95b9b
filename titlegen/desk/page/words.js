// Every word of the page in both languages.
const WORDS = {
  name: ["標題桌", "Headline desk"],
  choose: ["選標題", "Choose"],
  records: ["紀錄", "Records"],
  language: ["English", "中文"],
  theme: ["深淺色", "Light or dark"],
  article: ["文章", "Article"],
  articleHint: ["貼上文章，或把 .txt、.docx、.html 檔拖進來", "Paste an article, or drop a .txt, .docx or .html file"],
  file: ["開啟檔案", "Open a file"],
  address: ["網址", "Address"],
  read: ["讀取", "Read"],
  conditions: ["用字條件", "Words"],
  must: ["一定要有的字詞（用空格分開）", "Words that must occur (with spaces between)"],
  mustNot: ["不可以有的字詞（用空格分開）", "Words that must not occur (with spaces between)"],
  write: ["產生標題", "Write titles"],
  writing: ["撰寫中…", "Writing…"],
  stop: ["停止", "Stop"],
  clear: ["清除這一頁", "Clear this page"],
  candidates: ["候選標題", "Candidates"],
  none: ["還沒有候選標題", "No candidates yet"],
  candidate: ["候選", "Candidate"],
  edit: ["修改標題", "Edit the title"],
  copy: ["複製", "Copy"],
  copied: ["已複製：", "Copied: "],
  notCopied: ["瀏覽器不允許複製；標題已選取，請按 Ctrl+C", "The browser does not allow copying; the title is selected, press Ctrl+C"],
  keep: ["選用", "Keep"],
  kept: ["已選用並記錄：", "Kept: "],
  keptWaiting: ["已選用；恢復連線後會存檔", "Kept; it will be saved once the desk answers"],
  keptMark: ["已選用", "Kept"],
  more: ["多一些像這則的", "More like this"],
  undo: ["復原", "Undo"],
  redo: ["重做", "Redo"],
  chars: ["字", "characters"],
  why: ["排序理由", "Reasons for its place"],
  rules: ["規則", "Rules"],
  style: ["體例", "House style"],
  correct: ["改成", "Write"],
  correctAll: ["全部套用", "Correct all"],
  byHand: ["請自行修改", "by hand"],
  passed: ["符合", "kept"],
  failed: ["不符", "broken"],
  backed: ["內文有：", "In the article: "],
  unbacked: ["內文沒有：", "Not in the article: "],
  nearest: ["最接近的一句：", "The closest sentence: "],
  marksHint: [
    "按標題中有底線的字，看內文哪一句這樣說。紅色是內文查不到的。標記看不出誰對誰做了什麼，也看不出換句話說或漏掉的事；沒有標記不代表正確。",
    "Press an underlined word to see the sentence that says so. Red: the article does not. Marks do not see who did what to whom, what is said in other words, or what is left out: no mark is no proof.",
  ],
  slots: ["版位", "Slots"],
  push: ["推播", "Push"],
  mobile: ["行動版", "Mobile"],
  web: ["網頁", "Web"],
  print: ["報紙", "Print"],
  own: ["自訂", "Own"],
  ownLimit: ["自訂版位的字數上限", "Most characters of the own slot"],
  upTo: ["最多", "up to"],
  free: ["不限", "free"],
  tooLong: ["沒有夠短的候選", "No candidate is short enough"],
  reading: ["內文與依據", "Article and evidence"],
  trimmed: ["文章太長，模型只讀了前面一段", "The article is long: the model read its beginning alone"],
  away: ["模型伺服器沒有回應，恢復後會自動繼續。已輸入的內容都還在。", "The model server does not answer. It goes on by itself; nothing that you typed is lost."],
  back: ["已恢復", "It is back"],
  deskAway: ["標題桌沒有回應，恢復後會自動繼續。已輸入的內容都還在。", "The desk does not answer. It goes on by itself; nothing that you typed is lost."],
  ready: ["可以使用", "Ready"],
  first: ["第一則標題", "first title"],
  all: ["全部", "all"],
  seconds: ["秒", "s"],
  keys: [
    "鍵盤：Ctrl+Enter 產生；Alt+1 到 9 到候選；在候選上 C 複製、K 選用、E 修改、M 更多；Ctrl+Z 復原",
    "Keys: Ctrl+Enter writes; Alt+1 to 9 goes to a candidate; on it C copies, K keeps, E edits, M asks for more; Ctrl+Z undoes",
  ],
  made: ["產生次數", "Times asked"],
  chosen: ["選用的標題", "Titles kept"],
  firstTaken: ["選用第一則的比率", "First candidate taken"],
  edited: ["修改過的比率", "Edited"],
  changed: ["修改時換掉的字（平均）", "Characters changed when edited (mean)"],
  wrong: ["選用的候選裡內文查不到的", "In candidates taken, not in the article"],
  wrongKept: ["其中沒有修改就用了的", "Of these kept without a change"],
  number: ["數字", "numbers"],
  date: ["日期", "dates"],
  nameKind: ["名稱", "names"],
  place: ["地名", "places"],
  quotation: ["引文", "quotations"],
  export: ["匯出", "Export"],
  exportJson: ["全部（JSONL）", "All (JSONL)"],
  exportCsv: ["試算表（CSV）", "Spreadsheet (CSV)"],
  exportPairs: ["偏好訓練資料（JSONL）", "Preference pairs (JSONL)"],
  disclosure: ["揭露紀錄", "Log for disclosure"],
  time: ["時間", "Time"],
  model: ["模型", "Model"],
  written: ["模型寫的", "As written"],
  asKept: ["選用的", "As kept"],
  unchanged: ["未修改", "unchanged"],
  nothing: ["還沒有紀錄", "Nothing yet"],
  notSaved: ["這個瀏覽器沒有空間暫存，重新整理會遺失內容", "This browser has no room to remember the page; a reload loses it"],
};

export const LANGUAGES = ["zh", "en"];
let index = 0;

export function setLanguage(language) {
  index = Math.max(LANGUAGES.indexOf(language), 0);
  document.documentElement.lang = index ? "en" : "zh-Hant-TW";
  document.title = `${t("name")} · titlegen`;
}

export function t(name) {
  return WORDS[name][index];
}

// The server says everything in both languages.
export function said(notice) {
  return index ? notice.message : notice.message_zh;
}
