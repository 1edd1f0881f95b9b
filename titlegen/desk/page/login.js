// The token becomes a cookie that no script can read.
document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = document.getElementById("token").value;
  const response = await fetch("/api/login", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
  const said = document.getElementById("said");
  if (!response.ok) {
    const notice = await response.json();
    said.textContent = `${notice.message_zh} · ${notice.message}`;
  } else if ((await fetch("/api/status")).status === 401) {
    said.textContent =
      "這個瀏覽器在別的網站的框架裡不存登入；請在自己的分頁開啟標題桌 · " +
      "This browser keeps no login in a frame of another site; open the desk in a tab of its own";
  } else {
    location.replace("/");
  }
});
