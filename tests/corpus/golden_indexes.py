"""Index files as other tools made them, of the two shards that `gold` gives.

Made by tools/interop_peers.py's environments in November 2026: nvidia-dali-cuda120 2.4.0 (wds2idx), megatron-energon
7.4.1 (`energon prepare`), hfutils 0.13.0 (tar_create_index), webshart 0.4.6 (MetadataExtractor), ratarmountcore 0.11.1.
"""

from __future__ import annotations

import base64
import tarfile
import zlib

from corpus_tars import tar_bytes

LONG = "n" * 100
FILES = [
    ("a.JPG", b"1" * 600),
    ("a.txt", b"22"),
    ("d/", b""),
    ("b.jpg", b"x" * 700),
    ("b.txt", b"345"),
    ("__meta__", b"m"),
    (f"sub/{LONG}.jpg", b""),
    (f"sub/{LONG}.txt", b"r" * 513),
    ("noext", b"hello"),
]


def gold(dialect: str) -> bytes:
    """Return the shard of which the indexes were made: "pax" with an extension header before every member, or "gnu"."""
    return tar_bytes(FILES, tarfile.PAX_FORMAT, mtime=1.5) if dialect == "pax" else tar_bytes(FILES, tarfile.GNU_FORMAT)


def _text(text: str) -> bytes:
    return text.replace("NAME", LONG).encode()


def _packed(data: bytes) -> bytes:
    return zlib.decompress(base64.b85decode(data))


DALI_PAX = _text(
    "v1.2 5\n"
    "JPG 1536 600 a.JPG txt 4096 2 a.txt\n"
    "jpg 7680 700 b.jpg txt 10240 3 b.txt\n"
    "__meta__ 12288 1 __meta__\n"
    "jpg 14336 0 sub/NAME.jpg txt 15872 513 sub/NAME.txt\n"
    "noext 18432 5 noext\n"
)
DALI_GNU = _text(
    "v1.2 5\n"
    "JPG 512 600 a.JPG txt 2048 2 a.txt\n"
    "jpg 3584 700 b.jpg txt 5120 3 b.txt\n"
    "__meta__ 6144 1 __meta__\n"
    "jpg 7168 0 sub/NAME.jpg txt 8704 513 sub/NAME.txt\n"
    "noext 11264 5 noext\n"
)
HFUTILS_PAX = _text(
    '{"filesize": 20480, "hash": "afa987149f708ef67ff209cbff3606d92331c890", "hash_lfs": "898174f907fc7c3'
    'fb6dfaae336278e4d302ed6649c79b2342e855f222d6b0cf5", "files": {"a.JPG": {"offset": 1536, "size": 600,'
    ' "sha256": "b927ee229fd1f441c5ad341d69f724cbe0851123ba369bc830c66d756d082829"}, "a.txt": {"offset": '
    '4096, "size": 2, "sha256": "785f3ec7eb32f30b90cd0fcf3657d388b5ff4297f2f9716ff66e9b69c05ddd09"}, "b.j'
    'pg": {"offset": 7680, "size": 700, "sha256": "12f6b82c283303ae5e6a08094c81feeecb75a2ddce8e30582151da'
    '9efb97d3c9"}, "b.txt": {"offset": 10240, "size": 3, "sha256": "da70dfa4d9f95ac979f921e8e623358236313'
    'f334afcd06cddf8a5621cf6a1e9"}, "__meta__": {"offset": 12288, "size": 1, "sha256": "62c66a7a5dd70c314'
    '6618063c344e531e6d4b59e379808443ce962b3abd63c5a"}, "sub/NAME.jpg": {"offset": 14336, "size": 0, "sha'
    '256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}, "sub/NAME.txt": {"offset"'
    ': 15872, "size": 513, "sha256": "532a0d10b5ecf5d0a2b5751f6d2316a76505d08c636c54ba6419ba2594ca2091"},'
    ' "noext": {"offset": 18432, "size": 5, "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73'
    '043362938b9824"}}}'
)
WEBSHART_PAX = _text(
    '{"path":"pax.tar","filesize":20480,"files":{"a.txt":{"path":"a.txt","offset":4096,"length":2},"b.jpg'
    '":{"path":"b.jpg","offset":7680,"length":700},"noext":{"path":"noext","offset":18432,"length":5},"su'
    'b/NAME.txt":{"path":"sub/NAME.txt","offset":15872,"length":513},"sub/NAME.jpg":{"path":"sub/NAME.jpg'
    '","offset":14336,"length":0},"a.JPG":{"path":"a.JPG","offset":1536,"length":600},"__meta__":{"path":'
    '"__meta__","offset":12288,"length":1},"b.txt":{"path":"b.txt","offset":10240,"length":3}},"includes_'
    'image_geometry":false}'
)
WEBSHART_GNU = _text(
    '{"path":"gnu.tar","filesize":20480,"files":{"__meta__":{"path":"__meta__","offset":6144,"length":1},'
    '"noext":{"path":"noext","offset":11264,"length":5},"a.txt":{"path":"a.txt","offset":2048,"length":2}'
    ',"a.JPG":{"path":"a.JPG","offset":512,"length":600},"b.txt":{"path":"b.txt","offset":5120,"length":3'
    '},"sub/NAME.txt":{"path":"sub/NAME.txt","offset":9728,"length":513},"sub/NAME.jpg":{"path":"sub/NAME'
    '.jpg","offset":8192,"length":0},"b.jpg":{"path":"b.jpg","offset":3584,"length":700}},"includes_image'
    '_geometry":false}'
)
ENERGON_INFO = _text('{\n  "energon_version": "7.4.1",\n  "shard_counts": {\n    "pax.tar": 3\n  }\n}')
ENERGON_IDX = bytes.fromhex("000000000000000000180000000000000032000000000000004a000000000000")
ENERGON_SQLITE = _packed(
    b"c-"
    b"rmS&ubGw6bJA(v%h9*(kb+iVnOy&Od+<Yh&>gn22nz)HHBVe*_e$)^P}x<q1980;Q!#&i$@P0Ja`j?Ue&7?1@WXP6a+8MZnkZ#F|D9g;roG*"
    b"c{7ilx6>ss-MM<DPz!yh+FEXSp>vXkh%q|jI7FnYk3~C-q;CtOz3DV@ou%a$G7mkX!TWL}-"
    b"Aa8<c`5(^0001hJ+&uHD|32`t*2|vioaT`th#~MSgiZ*qPH9dZgr(z@9wb9&E;oGdFNvBe15^{neNOMo$k(T=q<a|nhI-"
    b"`+}21uTh56R+@{y?bI$cvGxVFGTV4x&w^gkMez>bMsNMF*+k=LcIW@-"
    b"Gv%L!r{H5;L>|d|S{*`ij)Hr@ew=y%MtbKG>J%P${qicE1in`Ql(rf&rpxx;^W%a3Od_AjKnXxf;cR2LQDz)oAy4!j(X=&zcA^+XoI@tlIhp"
    b"rh_rKS9Z{9LYQVs|zDGq?ZLPAR`o>YdYLefwYZhv#D}{fF%F^&GP@qoeHZWY<z9s}%4a3-"
    b"k+X;}mC0PI10a=(|X_{I&Srx3iu3;>9cT`Tei#9`o#b+4iwq$G90i))dblEY;Pn-"
    b"t|_(Rvd3Xv&WN$rhZC9^m~$4A5AWk+?4Ot7XSbN00000{1%~RiS{+dd9YHRY#so9f=1{NH-"
    b")r0FOSe+vY85m;NA!g#QXnyB)`f{^#uR`000000Dn$HZ(m~v^$!8f&?GB!U6ZyKz5h4mLz185Tlq>pmrqmx000000001g#h_^lHq1E>SHo%I"
    b"EM>&8;5Qd<Oi@ZVg+0uf8qAWG*5W7{Izs$uikm`o28W2JSsd|8moJ#a7dr3%KXl&zf518e00000008{|OkFU>HA5FR<GL<{9qs>3xk2)a{3z"
    b"ea*Yc$b000000002s-"
    b"((wtamJ^~Oj=W92t(MMWl8Tej*zArg0mswR@AUf>g@j?MCbqC$QSaNe5?Wh00000001~>Lsoq9pKTreHwWVmwaJgq{u?Tc&i*Hd|8*IMoF%9"
    b"KH8m`fVYTn)osiqf`TuY9p6Qq"
)
RATARMOUNT_SQLITE = _packed(
    b"c-rlqO>7&-6@Yh_6#ry;l{f+87P3bSYLhNak+St;6;4aZv`kl~BucjH7AY|zhvY`&F1x$5L<c#@b`I^Orxxfn$f<{-"
    b"y|%sNRut&12+(`c2E7yrddRVFW_P(uSys{>oW^}0Byso6?3*`l-"
    b"@ch03YhJ!b<Jj^Wtcr`lPl7cB+Jrw2$3Y|6#Py~KKwi!IG3f*=aiIh$Vv4x>6G$BN^Gfrihqze7yDtn7u||o4*xDnLjQmQ<o}t+%~R2@UpyO"
    b"o|BP*F?KU$HsBN28UDGXQ+Rn*ptz6nElbu>+ZLM4*>9HzlQmJn5luI|r#!Y@$uI-SGs#htUSShbnstE#kg*8%Ht8UcFAlTU;qTU`GS{a@8Se"
    b"D!?t=}zglT5XIKM&&Uw~ky}D{rosR)ZH?O={DO(P~-"
    b"D?l9V9W{$v>S~Eu;((WLjQ>fx_<zp9&N;2E!_44YDZ&qGwlAE=SJHCY6zf}h7xw+&z@$AfvDHjb333Q-"
    b"by>VEbjJ|&MZ0zy74>h*$m_6p)dzJG2k<&<qq=V+Ab0iII@DHIlO|qo4E!4Z_j`!X-"
    b"o*U`9!RbZXcUju?Y!&Y5?Ttz`(8G=DxC5>SJe?Q5eYzWurlzOmAE#`(+hq@#X=#RTd7lX{W=bpTWw6>6r`>yy=60opx9*i{tG7zE%)<QqmH8"
    b"~GZtRfi-SzbxnY~2zJ6fYd8b+^g=uEc>bdb2J$S&&|dfOtlK`zZYO5LLL$x2%$b5ia|l?9=%w>>pbWt;V=Zfgy4&#A#n=kkSofn+S!gUj-"
    b"U+0K$aHEoM%EpFG4G$=QUSbf&eS{iFEI{|SCe(#iSL*#nR?RS_?hQ@&O=pG}Q&ihAg4ZKK7n-"
    b"$XNP`%BpT;TFb^|;Gvvq@S5y<vltb~Sqlx(Fq^w6V8O&89^HilIL`j|{3eeZ8Bdoz+{<G3!_@yMs1qX$Q>8k9^*v?-"
    b"*v<38bAeq=%d<*YsoMpsLY%R=!!Q+$q%_knffskc<-"
    b"@*+h0W5lO91%aW!y*@5*V=p(Dsfo+KMx))USqIWcT_#i5x^2vmV${w>R4_WUsHXfCpcodcV86%$?l`P-RleA5t%|{T#qv&&<%r9~=zmVUo-"
    b"J#7aLLr89n?dgNbd7t1Tg9CbJINVdU+P8gDE|1=L^L%sBR^>fXZTOBe-s&aNFX<OE*VQhNA9Ia1V@Fg8^(Q*6OYx3rc-lBZh(H0*&Ny(h`JT"
    b"-g6#1fA5Vd9b8e!&2?GcWBfg7x5eyDDAvIT5A=&%mN}3lXvR5LJ)Y{DR{O5PQUi6Qnk3!MZ`SbGOs_#Osb94|s#(`Wu@?XF~!QSP9Y4AwA+^"
    b"tr&?v@kTVmOj2pFh!H-jr)EKb-i<P>!ZjDfwqx!rqqFWtRA(jN2(>BOBqF?4*g$bK{raL|&QfYw)KFH-"
    b"=|M$SFc#3?M_BRO@n~)umQv^lbR){^S;pi#b12i1sbU_T1qPQn}HCF4YL{4^Lnw6JrDyd5-"
    b"~4^&r$Nr;^DmtqBjEXPKkPx9vY|%VI)sk>^Qxh;<kcjyB<>3Gz%6ZlbicG2g&_^8C;<nkQUn5Bn#S!cEu<di}`r=u{f;=zOk<_DQASogH%^2"
    b"2wt~fH{Ka8yFla;0Y7Pr0$RmEY{>>bd!My28EI94AL_OFs7TVF@Q|^kOdWZuG1_?vjHPkHa6DbBj=S`Fa%qpK6<6Xx|?8_Q|u@efg$dl$i60"
    b"P!Jxs-;Bt1*hbRV1dD%>$`8I=LliJMj#8?BP?!!$tHE3W|S4g30K4obc-6n5ncSxX&nxfNw2i@Kq(0HFegk#}X<?n^uiG@5Ve$$<3IDOD8-"
    b"*H`M;D;Zx(Sh^)*i43z?X7i~nCOj8kD7ayFs=!66fx+-57*f@wH{B+kVNv{{D5CdyOu#Zw%xauXJ_~K_w!B~;?tj5qi-89@bdX=zGL^g-"
    b"gOzCA#%=S-X8S1>w8+eV-wo%Gis9FplfR&COq&hXU@WJJ#<gAN!zf=px@+f99dEUJ5BH+zgxm0m}c?x#?P&eu}_4Ly@`yKBm0c#%!xagBzbC"
    b"hM}w&ap4jf7r+YCF^uh7tk;s!dCz<8OvlNUkStXLXo_b!o7BN^aijNSycg6V2R}y{`$zMt8U)0~IKUG`mTk314pC&&|{t<)-"
    b"f*=TjAP9mW$d|;|5>v@DiV}+{axx~c2D@|8l2qzVT!>F4Q;H%-L#N#`-"
    b"CzgyigZhw`1WV6g2N9BhidGV*AL%T6veMO3u^QiK;AyEm!!8OMIN&#8Feg*eF+x5({FPJ2JOj2rjpZ&68EjCi^c7F{gPA|t9fDKsLywK7t>N"
    b"k3I*$342yb7upTu0hICF+ejltzLQ_eVJ3{d)HeZ$A7`0jYaQ=dFv`NaFOh{9b64dk!8S2G?P15}B&9#W6d@oon!QcN+|58%_ss2^{Sp9?gTl"
    b"LrK2kOsN0zw2q5ClOG1VIo4dEpEqe2qYUu}c-"
    b"P7u~8@j)+c9B+n?aSldY?C*XZwcGq&^@rk6W$jw)!kRx~38z#Inv8oVu&fJ9oB>`u#xOn}ann+G7vcH@W;otvDQy5(cf*=TjAP9mW2=X$M!1"
    b"sRyK@bE%5ClOG1bOMf@Ba}5K@bE%5ClOG<mCsy|3?r6K@bE%5ClPxmmmK9e>mBYPCrflA~}Qu1VIo4K@bE%5ahq*wQ%UNs#$CLprSWS)?>O&"
    b"yM=S1(3_X}7Pm}qR%wrIi;dVTe5W?n+@a=SM+u*QvP#YNfL~#~n-=@_)%-2@(#xbpyB5olG}9Xf-"
    b"v|>#>4Dw4yu|lu=6eeFNA*Ev`M_qn*q+$G(l)7X@vVqQ74Pt7HVsX;p_)GEc7wGxsm=FQ^h>n1ZkX)*%rvZk)(*8gj0=A7Hk`E|Y5i@+_Jq>"
    b"yK5aOb78e#57w3u#?>!#M;pz9=d^=m4@}63Dor*mvq0-{D`T63txogGz;(TF#t|&U@6xVfYtcFveP;l$)cK5`-"
    b"m&@d8;o5>HGa7rA5IKUzv+c}ZT^O~~IIbP1LZLA4)M>JZP`of-n7ir-_^y@9#BD&+4LF&*R#>{au;_@yrkcy-"
    b"%9Y~Mk}EmciryEnLg(9U@(RwW=~(3&;rd~&aCOO*3>+KZ<KO>>)sH0gZ|cYDN9w=uaYYaWK@bE%5ClPx|Haj%&}I4P;!;=*y(tIQmO{zUd3m"
    b"&wq)djU<KAKm|NdW5|17D0hd&5{AP9mW2!bF8f_!CoMTw+RF*&C3e<ms97xRT^N{-B&jmdG7!i&H7N0LImSj-"
    b"nE6XN~<6G{C<{S-ZiAP9mW2!bF8f*@aQ;-Qo*)&rDeXeO`>@NbO!9pw"
)
